"""The benchmark of whole runs: cores are shared fairly, figures are those of the metrics, ratios stay within a turn."""

import json
import os
import re
import subprocess
import sys
import tarfile

import pytest

from benchmarks import train as program
from benchmarks.scaling import layouts as scaling
from benchmarks.scaling.layouts import (
    Figures,
    Layout,
    command,
    efficiency,
    figures,
    layouts,
    link_images,
    on_cores,
    rows_of,
    same_work,
    table,
)
from pixpro.config import parse_args
from pixpro.errors import UserError
from tests.helpers.pictures import folder

STUB = """
import json, os, sys
words = dict(zip(sys.argv[1:-1], sys.argv[2:]))
if "--fail" in sys.argv:
    sys.exit("error: no such thing")
ranks, cores = int(words.get("--nproc", 1)), len(os.sched_getaffinity(0))
os.mkdir(words["--output_dir"])
images, batch = len(os.listdir(words["--data"])), int(words["--batch_size"])
with open(words["--output_dir"] + "/metrics.jsonl", "w") as file:
    for step in range(1, images // batch + 1):
        row = {"step": step, "images_per_second": 1e9 if step == 1 else 10.0 * ranks, "data_wait": 0.25, "memory_gb": 2}
        print(json.dumps(row), file=file)
"""


def test_ranks_have_equally_many_cores_and_images():
    assert layouts([1, 2], 2, 4, on_cpu=True) == [(1, 1, 4), (2, 2, 4), (1, 2, 8)]
    assert layouts([2], 5, 4, on_cpu=True) == [(1, 2, 4), (2, 4, 4), (1, 4, 8)]
    assert layouts([8, 1, 2, 4], 100, 128, on_cpu=False) == [(1, 12, 128), (2, 24, 128), (4, 48, 128), (8, 96, 128)]
    assert layouts([1], 3, 4, on_cpu=True) == [(1, 3, 4)]
    with pytest.raises(UserError, match=r"4 ranks on 2 core\(s\)"):
        layouts([1, 4], 2, 4, on_cpu=True)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not bound to cores here")
def test_programs_see_only_their_cores_and_this_process_keeps_its_own():
    before = os.sched_getaffinity(0)
    with on_cores(1):
        seen = subprocess.run([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], capture_output=True)
    assert seen.stdout.decode().strip() == str({min(before)}) and os.sched_getaffinity(0) == before


def test_train_understands_the_command(tmp_path):
    words = command(Layout(2, 4, 8), tmp_path, tmp_path / "out", ["--arch", "resnet18", "--log_every", "5"])
    assert words[0] == "train.py"
    config = parse_args(words[1:])
    assert (config.batch_size, config.nproc, config.multiprocessing_distributed) == (16, 2, True)
    assert (config.epochs, config.data, config.arch) == (1, [str(tmp_path)], "resnet18")
    assert not parse_args(command(Layout(1, 4, 8), tmp_path, tmp_path / "out", [])[1:]).multiprocessing_distributed


def test_figures_are_those_of_the_steps_after_the_warm_up(tmp_path):
    rows = [(1, 9999, 0.9, 1.0), (2, 100, 0.1, 2.0), (3, 50, 0.2, 4.0), (4, 200, 0.4, 3.0)]
    names = ("step", "images_per_second", "data_wait", "memory_gb")
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows] + ['{"step": 4, "matching": 0.5}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    # 100 images take 1, 2 and 0.5 s, of which 0.1, 0.4 and 0.2 s were waiting: 0.7 of 3.5 s.
    assert figures(tmp_path / "metrics.jsonl", 1) == pytest.approx((100, 0.2, 4.0))
    with pytest.raises(UserError, match="no rows after step 4"):
        figures(tmp_path / "metrics.jsonl", 4)


def test_ratios_are_taken_within_a_turn():
    one, two, whole = Layout(1, 1, 4), Layout(2, 2, 4), Layout(1, 2, 8)
    # The machine is ten times slower in the second turn.
    speeds = {one: (10, 1, 12), two: (16, 1.8, 24), whole: (20, 2, 20)}
    runs = {layout: [Figures(speed, 0.1, 2.0) for speed in found] for layout, found in speeds.items()}
    assert efficiency(runs, two) == pytest.approx((0.9, 0.8, 1.0))  # 16/20, 1.8/2, 24/24
    rows = rows_of(runs)
    assert rows[1]["images_per_second"] == (16, 1.8, 24) and rows[2]["efficiency"] is None
    cells = [cell.strip() for cell in table(rows)[3].split("|")]
    assert cells == ["", "2", "2", "4", "16 (1.8 to 24)", "0.90 (0.80 to 1.00)", "10.0%", "2.00 GB", ""]
    # 16/20, 1.8/2, 24/20
    assert same_work(runs)[1].endswith("2 cores and 8 images: 0.90 times the images/s (0.80 to 1.20)")
    assert same_work({one: runs[one]}) == same_work({one: runs[one], two: runs[two]}) == []


def test_an_epoch_is_as_long_as_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    source = folder(tmp_path / "source", 3)
    links = sorted(link_images(source, tmp_path / "links", 7).iterdir())
    assert [link.resolve().name for link in links] == [f"00{i % 3}.jpg" for i in range(7)]
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(source / "000.jpg")
    with pytest.raises(UserError, match="archive"):
        link_images(tmp_path / "shard.tar", tmp_path / "more", 2)


@pytest.fixture
def stub(tmp_path, monkeypatch) -> list[str]:
    """Options of a benchmark that finds two cores and a train.py which only writes figures."""
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scaling, "ROOT", tmp_path)
    monkeypatch.setattr(program, "available_cores", lambda: 2)
    (tmp_path / "train.py").write_text(STUB)
    return ["--data", str(folder(tmp_path / "images", 4)), "--ranks", "2", "--steps", "2", "--log_every", "1"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not bound to cores here")
def test_several_ranks_make_a_table_and_a_file(stub, tmp_path, capsys):
    assert program.main([*stub, "--warmup", "1", "--repeats", "2", "--json", str(tmp_path / "result.json")]) == 0
    told, progress = capsys.readouterr()
    assert "turn 2, 2 rank(s) on 2 core(s): 20 images/s" in progress
    assert "| 2 | 2 | 4 | 20 (20 to 20) | 1.00 (1.00 to 1.00) | 25.0% | 2.00 GB |" in re.sub(" +", " ", told)
    assert "2 ranks against 1 rank with the same 2 cores and 8 images: 2.00 times" in told
    result = json.loads((tmp_path / "result.json").read_text())
    assert [(row["ranks"], row["cores"], row["batch"]) for row in result["rows"]] == [(1, 1, 4), (2, 2, 4), (1, 2, 8)]
    assert result["about"]["cores"] == 2


def test_a_run_that_fails_is_an_error_in_one_line(stub, capsys):
    assert program.main([*stub, "--extra=--fail"]) == 2
    assert capsys.readouterr().err == "error: train.py with 1 rank(s) ended with exit code 1: error: no such thing\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--steps 0", "--steps is 0"),
        ("--warmup -1", "--warmup -1"),
        ("--log_every 3 --steps 5", "not multiples of --log_every"),
        ("--ranks 0", "expected numbers from 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.main(words.split())
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_the_real_program_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    options = [
        "--data",
        str(folder(tmp_path / "images", 4)),
        "--arch",
        "resnet18",
        "--image_size",
        "32",
        "--ranks",
        "1",
    ]
    options += ["--batch_per_rank", "2", "--steps", "2", "--warmup", "1", "--log_every", "1", "--repeats", "1"]
    assert program.main([*options, "--extra=--hidden_dim 16 --dim 8", "--json", str(tmp_path / "result.json")]) == 0
    (row,) = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert row["images_per_second"][0] > 0 and 0 < row["data_wait"] < 1 and row["memory_gb"] > 0.1
    assert row["efficiency"] == [1, 1, 1] and "| images/s | efficiency |" in re.sub(" +", " ", capsys.readouterr().out)
