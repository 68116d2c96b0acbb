"""The long versions of full disks and damaged files, by `pytest -m soak`."""

import contextlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from pixpro.images.decoding import BadImage, decode
from tests.helpers.runs import BATCH, Run, arguments, pictures, rows, weights
from tests.soak.test_kills import wait_for_text

pytestmark = pytest.mark.soak


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


MORE = ("--epochs", "30", "--save_every", "1steps", "--keep_every", "999")


def test_a_full_disk_loses_no_step_and_no_row(small_disk, tmp_path):
    data = pictures(tmp_path / "images")
    whole = Run(arguments(data, tmp_path / "whole", *MORE))
    assert whole.wait() == [0]
    run = Run(arguments(data, small_disk / "run", *MORE), quick_retries)
    wait_for_text(run, "step 20/")
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    wait_for_text(run, "CHECKPOINT NOT WRITTEN")
    filler.unlink()
    assert run.wait() == [0], run.text()
    assert "CHECKPOINT NOT WRITTEN" in run.text() and "Traceback" not in run.text()
    assert weights(small_disk / "run") == weights(tmp_path / "whole")
    assert rows(small_disk / "run") == rows(tmp_path / "whole")


def quick_retries() -> None:
    """Try failed writes again at once."""
    from pixpro.checkpoints import saver

    start = saver.Saver.__init__
    saver.Saver.__init__ = lambda self, *args, **options: start(self, *args, **options, retry_seconds=0.0)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file cut short, or with bytes changed, lost or doubled."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 30])):
        start = rng.randrange(len(changed))
        stop = start + rng.randrange(1, 60)
        kind = rng.randrange(4)
        changed[start:stop] = [bytes(changed[:start][-60:]), rng.randbytes(stop - start), b"", b"\xff" * 4][kind]
    return bytes(changed if rng.random() < 0.7 else changed[: rng.randrange(len(changed))])


def test_a_thousand_damaged_images_are_pixels_or_bad_files(tmp_path, capsys):
    data, rng, bad = pictures(tmp_path / "images"), random.Random(0), 0
    good = [path.read_bytes() for path in sorted(data.iterdir())]
    for number in range(1000):
        (data / f"good{number:04}.jpg").write_bytes(good[number % len(good)])
        content = damaged(rng.choice(good), rng)
        (data / f"damaged{number:04}.jpg").write_bytes(content)
        try:
            assert decode(content).shape[0] == 3
        except BadImage as error:
            bad += 1
            assert "\n" not in str(error)
    run = Run(arguments(data, tmp_path / "run", "--epochs", "1", "--max_bad", "1", "--batch_size", str(BATCH * 20)))
    assert run.wait() == [0], run.text()
    assert "Traceback" not in run.text() and bad > 100
    strict = Run(arguments(data, tmp_path / "strict", "--epochs", "1", "--batch_size", str(BATCH * 20)))
    assert strict.wait() == [2] and "more than the allowed share" in strict.text()
    with capsys.disabled():
        print(f"\n1000 damaged images: {bad} bad files, {1000 - bad} still pictures; a run over them ended well")


def test_a_read_only_output_loses_no_step(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can mount a folder read-only")
    data, output = pictures(tmp_path / "images"), tmp_path / "run"
    whole = Run(arguments(data, tmp_path / "whole", *MORE))
    assert whole.wait() == [0]
    run = Run(arguments(data, output, *MORE), quick_retries)
    wait_for_text(run, "step 20/")
    side = tmp_path / "read only"
    side.mkdir()
    for mount in (["--bind", output, side], ["-o", "remount,ro,bind", side], ["--bind", side, output]):
        subprocess.run(["mount", *mount], check=True)
    wait_for_text(run, "CHECKPOINT NOT WRITTEN")
    for place in (output, side):
        subprocess.run(["umount", "-l", place], check=True)
    assert run.wait() == [0], run.text()
    assert "Read-only file system" in run.text() and "Traceback" not in run.text()
    assert (weights(output), rows(output)) == (weights(tmp_path / "whole"), rows(tmp_path / "whole"))
    shutil.rmtree(output)
