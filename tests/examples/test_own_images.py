"""The example runs from beginning to end, and its notebook has the same cells."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from examples.to_notebook import cells, notebook

ROOT = Path(__file__).parents[2]
SCRIPT, NOTEBOOK = ROOT / "examples" / "own_images.py", ROOT / "examples" / "own_images.ipynb"


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
    assert re.search(r"mIoU after 2 steps: pre-trained 0\.\d+, at random 0\.\d+\n$", result.stdout)
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
