"""Training on a damaged data set by the command line: goes on when allowed, stops with the list when not."""

import re

import pytest
import torch

import train
from pixpro.plan import check
from tests.helpers import pictures
from tests.helpers.image_sources import JPEG, make_tar
from tests.helpers.pictures import DAMAGE

SMALL = "--arch resnet18 --hidden_dim 8 --dim 8 --image_size 32 --batch_size 60 --epochs 1 --eval_every 0 --workers 0"


@pytest.fixture(autouse=True)
def threads():
    """The program sets the number of threads of this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """120 images, 5 % of them bad, one in each way."""
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    root = pictures.folder(tmp_path / "data", 120)
    for i, damage in enumerate(DAMAGE.values()):
        path = root / f"{i:03}.jpg"
        path.write_bytes(damage(path.read_bytes()))
    return root


def command(data, *more: str) -> list[str]:
    return ["--data", str(data), *SMALL.split(), "--output_dir", str(data.parent / "output"), *more]


def test_it_trains_when_that_many_are_allowed(data):
    assert train.main(command(data, "--max_bad", "0.06")) == 0
    assert (data.parent / "output" / "last.pth.tar").exists()


def test_it_stops_with_the_list_when_not(data, capsys):
    assert train.main(command(data)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    stated = int(re.fullmatch(r"error: (\d) bad image files of 120, .*", error)[1])
    assert stated >= 2 and error.count(str(data)) == stated


def test_a_run_says_what_it_leaves_out_and_uses_what_check_counts(data, capsys):
    (data / "loop").symlink_to("loop")
    for name in ("a.heic_", "b.txt", "c.txt", ".hidden.jpg"):
        (data / name).write_bytes(b"")
    make_tar(data / "more.tar", {f"{i}.jpg": JPEG for i in range(30)} | {"notes.txt": b""})
    assert train.main(command(data, "--max_bad", "0.06")) == 0
    out = capsys.readouterr().out
    assert "pixpro on resnet18: 150 images" in out and "JPEG files decoded by torch" in out
    assert "\nwarning: left out 6: 1 link(s) (Too many levels of symbolic links), 3 .txt, 1 .heic_, 1 hidden; " in out
    check.main([str(data), "--workers", "0"])
    counted = capsys.readouterr().out
    assert "images        150 in 2 place(s)" in counted and "bad files     6 " in counted
    assert re.search(r"left out +6, 1 of them may be images\n +1 link\(s\) \(Too many levels", counted)


def test_decoding_on_a_gpu_that_is_not_there_is_refused(data, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert train.main(command(data, "--decode", "gpu")) == 2
    assert "--decode gpu: no GPU found" in capsys.readouterr().err
