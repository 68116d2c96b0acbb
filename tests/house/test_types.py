"""The annotations of the package hold, and those who install it are told that it has them."""

import re
import subprocess
import sys
import tomllib

from tests.house.rooms import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_annotations_of_the_package_hold_and_a_wrong_one_is_found(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from pixpro import cosine_momentum\n\nstep: str = cosine_momentum(1, 2)\n")
    command = [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", "pixpro", wrong]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1 and "wrong.py:3: error: Incompatible types in assignment" in errors[0], done
    assert done.returncode == 1


def test_each_exception_gives_its_reason():
    exceptions = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "pixpro").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if "type: ignore" in line and not re.search(r"# type: ignore\[[a-z-]+\]  # \w{2}", line)
    ]
    assert not exceptions, f"`# type: ignore[CODE]  # REASON` is expected at {exceptions}"


def test_the_marker_of_typed_packages_is_installed_with_it():
    assert (ROOT / "pixpro" / "py.typed").read_bytes() == b""
    assert "py.typed" in SETTINGS["tool"]["setuptools"]["package-data"]["pixpro"]
