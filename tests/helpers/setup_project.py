"""Stands in for a user's machine in the tests of the set-up: a copy of its files, a pip and a git that note calls."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_ZSH = pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
SHELLS = pytest.mark.parametrize("shell", ["bash", pytest.param("zsh", marks=NO_ZSH)])

# The real Python, except that its new environments get the pip below.
PYTHON = """#!/bin/sh
[ "$1 $2" = "-m venv" ] || exec "{python}" "$@"
"{python}" -m venv --without-pip "$3" "$4" || exit
for site in "$4"/lib/python3*/site-packages; do cp -r "{pip}" "$site/pip"; done
"""
# Notes its calls; "installs" what it was asked for, fails, or kills the set-up as a power cut would.
PIP = """
import os, pathlib, re, signal, sys, sysconfig
with open(os.environ["CALLS"], "a") as calls:
    print("pip", *sys.argv[1:], file=calls)
mode = os.environ.get("PIP_MODE")
if mode == "wait":
    open(os.environ["GATE"]).read()
if mode == "fail":
    sys.exit("ERROR: No matching distribution found for torch>=2.11")
if mode == "die":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
names = re.findall(r"^[a-z0-9]+", pathlib.Path("requirements.txt").read_text(), re.M)
for name in [*names, "pixpro"]:
    info = pathlib.Path(sysconfig.get_path("purelib"), name + "-99.dist-info")
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 99\\n")
script = pathlib.Path(sys.executable).with_name("pytest")
script.write_text("#!/bin/sh\\necho tests ran in $PWD; exit $PYTEST_STATUS\\n")
script.chmod(0o755)
"""
GIT = """#!/bin/sh
echo "git $*" >> "$CALLS"
[ "$GIT_MODE" = hang ] && exec sleep 60
exit 128
"""


class Project:
    """A copy of the files of the set-up in a folder with a space in its name, and a way to run shell lines on it."""

    def __init__(self, folder: Path):
        self.folder, self.bin, self.calls_file = folder / "my project", folder / "bin", folder / "calls"
        (self.folder / ".ci").mkdir(parents=True)
        for name in ["install_packages.sh", "requirements.txt", "pyproject.toml", ".ci/run"]:
            shutil.copy(ROOT / name, self.folder / name)
        (folder / "pip").mkdir()
        (folder / "pip/__init__.py").touch()
        (folder / "pip/__main__.py").write_text(PIP)
        self.program("python3", PYTHON.format(python=sys.executable, pip=folder / "pip"))
        self.program("git", GIT)

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    def program(self, name: str, text: str) -> Path:
        """The path of an executable with this text, first on the PATH of all runs."""
        self.bin.mkdir(exist_ok=True)
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)
        return self.bin / name

    def calls(self) -> list[str]:
        """What pip and git were called with since the last look."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return lines

    def start(self, shell: str, code: str, **env: str) -> subprocess.Popen:
        """The process of `shell -c code`, started in another folder; $S is the script."""
        dropped = {"DETECTRON2_SOURCE", "PYTHON", "VIRTUAL_ENV", "PYTHONPATH", "BASH_ENV"}
        clean = {name: value for name, value in os.environ.items() if name not in dropped}
        env = {"S": str(self.folder / "install_packages.sh"), "CALLS": str(self.calls_file), "PIP_NO_INDEX": "1", **env}
        env["PATH"] = f"{self.bin}{os.pathsep}{env.pop('FIRST', '')}{os.pathsep}{os.environ['PATH']}"
        command = [shell, *(["-f"] if shell == "zsh" else []), "-c", code]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.bin, env={**clean, **env}, stdout=pipe, stderr=pipe, text=True)

    def run(self, shell: str, code: str, **env: str) -> subprocess.CompletedProcess:
        """What `start` started, finished."""
        process = self.start(shell, code, **env)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def set_up(self, shell: str = "bash", options: str = "", **env: str) -> subprocess.CompletedProcess:
        """The finished run of sourcing the script, which then prints the status and the active environment."""
        return self.run(shell, f'source "$S" {options}; echo "status $? venv ${{VIRTUAL_ENV:-none}}"', **env)


def one_line(text: str) -> str:
    """The only line of `text`."""
    (line,) = text.splitlines()
    return line
