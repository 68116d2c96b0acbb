"""The script for the first GPU: whatever a measurement does, it leaves a row and the next one runs."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import line

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "first_gpu.sh"


def row_of(folder: Path, *command: str, seconds: float = 60.0, needs: int = 0) -> dict:
    """The row that a line of the script leaves."""
    settings = ["--out", str(folder), "--part", "some", "--until", str(time.time() + seconds), "--needs", str(needs)]
    assert line.main([*settings, "name", "--", *command]) == 0
    return json.loads((folder / "results.jsonl").read_text().splitlines()[-1])


def test_a_row_has_the_exit_code_the_last_words_and_the_result(tmp_path):
    program = "import sys; print('said'); open(sys.argv[1], 'w').write('{\"speed\": 3}')"
    row = row_of(tmp_path, sys.executable, "-c", program, "{json}")
    assert (row["exit_code"], row["tail"], row["result"]) == (0, ["said"], {"speed": 3})
    assert row["part"] == "some" and row["name"] == "name" and not row["timed_out"]


def test_what_fails_is_a_row_too(tmp_path):
    row = row_of(tmp_path, sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)")
    assert row["exit_code"] == 3 and row["tail"] == ["why"] and "result" not in row
    assert "not_run" in row_of(tmp_path, "no-such-program-anywhere")
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(line, "LEAST", 0.0)
    started = time.monotonic()
    row = row_of(tmp_path, "bash", "-c", "sleep 100 & sleep 100", seconds=1.0)
    assert row["timed_out"] and row["exit_code"] is None and time.monotonic() - started < 60


def test_what_cannot_run_says_so(tmp_path):
    assert "needs" in row_of(tmp_path, "true", needs=torch.cuda.device_count() + 1)["not_run"]
    assert "over" in row_of(tmp_path, "true", seconds=1.0)["not_run"]


def test_parts_are_found_by_their_names(tmp_path):
    done = subprocess.run(["bash", str(SCRIPT), "nonsense"], env={"OUT": str(tmp_path / "x"), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 2 and not (tmp_path / "x").exists()


@pytest.mark.parametrize("part", ["tests", "waits", "runs", "step", "largest", "data", "ranks"])
def test_each_part_of_the_list_is_written(part):
    text = SCRIPT.read_text()
    assert f"run_{part}() {{" in text and part in text.split("ALL=(")[1].split(")")[0].split()
