#!/usr/bin/env python
"""A script whose sections begin with `# %%` -> the notebook of the same cells beside it: to_notebook.py SCRIPT."""

import json
import re
import sys
from pathlib import Path


def cells(script: str) -> list[tuple[str, str]]:
    """Kind (markdown or code) and text of each section; markdown without its comment signs."""
    found = []
    for section in re.split(r"^# %%", script, flags=re.M)[1:]:
        head, _, body = section.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        text = body.strip("\n")
        found.append((kind, re.sub(r"^# ?", "", text, flags=re.M) if kind == "markdown" else text))
    return found


def notebook(script: str) -> dict:
    """The notebook as Jupyter keeps it, without outputs."""
    entries = []
    for number, (kind, text) in enumerate(cells(script)):
        entry = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        entries.append(entry | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": entries, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def main(argv: list[str]) -> int:
    """Write the notebook beside each script."""
    for name in argv:
        script = Path(name)
        text = json.dumps(notebook(script.read_text(encoding="utf-8")), indent=1, ensure_ascii=False)
        script.with_suffix(".ipynb").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
