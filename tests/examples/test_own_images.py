"""The example runs from beginning to end, and its notebook has the same cells."""

import ast
import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import train
from examples.to_notebook import cells, notebook
from tests.helpers.commands import check_python

ROOT = Path(__file__).parents[2]
SCRIPT, NOTEBOOK = ROOT / "examples" / "own_images.py", ROOT / "examples" / "own_images.ipynb"
FINE_TUNED = r"mIoU after 2 steps: pre-trained 0\.\d+, at random 0\.\d+\n$"


def run_here(command: list[str], **options: object) -> subprocess.CompletedProcess:
    """The training in this process; of the other programs their parsers, which accept the words, and what is read."""
    program, *words = command[1:]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        if program == str(ROOT / "train.py") and "--plan" not in words:
            assert train.main(words) == 0
        else:
            check_python(ROOT, ["train.py" if program == str(ROOT / "train.py") else program, *words])
    if "visualize" in words:
        Path(words[words.index("--out") + 1]).mkdir()
    return subprocess.CompletedProcess(command, 0, said.getvalue())


def test_the_script_trains_and_fine_tunes_and_its_other_commands_are_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIXPRO_EXAMPLE_SHORT", "1")
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subprocess, "run", run_here)
    runpy.run_path(str(SCRIPT))
    said = capsys.readouterr().out
    assert "loss" in said and re.search(FINE_TUNED, said)
    assert (tmp_path / "output" / "own_images" / "last.pth.tar").is_file()


@pytest.mark.soak
def test_the_script_runs_from_images_to_a_fine_tuned_network(tmp_path):
    where = {
        **os.environ,
        "PIXPRO_EXAMPLE_SHORT": "1",
        "PYTHONPATH": str(ROOT),
        "PIXPRO_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, str(SCRIPT)]
    result = subprocess.run(command, cwd=tmp_path, env=where, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert re.search(FINE_TUNED, result.stdout)
    for said in ("bad files     0", "suggestion  --batch_size 4", "loss", ".png"):
        assert said in result.stdout
    assert (tmp_path / "output" / "own_images" / "last.pth.tar").is_file()


def test_the_notebook_has_the_cells_of_the_script():
    kept = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    written = [(cell["cell_type"], "".join(cell["source"])) for cell in kept["cells"]]
    assert written == cells(SCRIPT.read_text(encoding="utf-8")), "python examples/to_notebook.py examples/own_images.py"
    assert not any(cell.get("outputs") for cell in kept["cells"])


def test_the_cells_are_the_whole_script_in_its_order():
    script = SCRIPT.read_text(encoding="utf-8")
    code = "\n".join(text for kind, text in cells(script) if kind == "code")
    assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(script))


def test_markdown_loses_its_comment_signs_and_code_keeps_its_comments():
    script = "# %% [markdown]\n# # Title\n#\n# text\n\n# %%\nx = 1  # one\n# two\n"
    assert cells(script) == [("markdown", "# Title\n\ntext"), ("code", "x = 1  # one\n# two")]
    first, second = notebook(script)["cells"]
    assert first["source"] == ["# Title\n", "\n", "text"] and "outputs" not in first
    assert second["source"] == ["x = 1  # one\n", "# two"] and second["outputs"] == []
