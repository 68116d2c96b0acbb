"""Set-up: install_packages.sh and .ci/run in each shell, with stand-ins for pip and git (nothing is downloaded)."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
if mode == "fail":
    sys.exit("ERROR: No matching distribution found for torch>=2.11")
if mode == "die":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
names = re.findall(r"^[a-z]+", pathlib.Path("requirements.txt").read_text(), re.M)
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

    def run(self, shell: str, code: str, **env: str) -> subprocess.CompletedProcess:
        """The finished `shell -c code`, run in another folder; $S is the script."""
        dropped = {"DETECTRON2_SOURCE", "PYTHON", "VIRTUAL_ENV", "PYTHONPATH", "BASH_ENV"}
        clean = {name: value for name, value in os.environ.items() if name not in dropped}
        env = {"S": str(self.folder / "install_packages.sh"), "CALLS": str(self.calls_file), "PIP_NO_INDEX": "1", **env}
        env["PATH"] = f"{self.bin}{os.pathsep}{env.pop('FIRST', '')}{os.pathsep}{os.environ['PATH']}"
        command = [shell, *(["-f"] if shell == "zsh" else []), "-c", code]
        return subprocess.run(command, cwd=self.bin, env={**clean, **env}, capture_output=True, text=True, timeout=120)

    def set_up(self, shell: str = "bash", options: str = "", **env: str) -> subprocess.CompletedProcess:
        """The finished run of sourcing the script, which then prints the status and the active environment."""
        return self.run(shell, f'source "$S" {options}; echo "status $? venv ${{VIRTUAL_ENV:-none}}"', **env)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def one_line(text: str) -> str:
    """The only line of `text`."""
    (line,) = text.splitlines()
    return line


@SHELLS
def test_the_first_call_installs_and_activates_and_the_second_only_activates(project, shell):
    first = project.set_up(shell)
    assert first.stdout.endswith(f"status 0 venv {project.venv}\n"), first
    assert "pip install --quiet -r requirements.txt -e .[test]" in project.calls()
    second = project.run(shell, 'source "$S" && command -v python pytest')
    assert second.stdout.endswith(f"{project.venv}/bin/python\n{project.venv}/bin/pytest\n"), second
    assert second.stderr == ""
    assert project.calls() == []


@SHELLS
def test_executing_the_script_installs_and_says_how_to_activate(project, shell):
    result = project.run(shell, f'{shell} "$S"')
    assert result.returncode == 0
    assert result.stdout.endswith(f"source {project.venv}/bin/activate\n")


@SHELLS
def test_a_failure_leaves_the_callers_shell_open_and_says_one_line(project, shell):
    result = project.set_up(shell, PIP_MODE="fail")
    assert result.stdout.endswith("status 1 venv none\n")
    assert "No matching distribution found for torch>=2.11" in one_line(result.stderr)
    assert project.set_up(shell).stdout.endswith(f"status 0 venv {project.venv}\n")


DUMP = {
    "bash": "set -o; shopt; trap; pwd; umask; echo $@ $FOO; compgen -v; compgen -A function",
    "zsh": "setopt; trap; pwd; umask; echo $@ $FOO; emulate -L zsh; print -l ${(ko)parameters} ${(ko)functions}",
}
ODD_OPTIONS = {
    "bash": "set -euo pipefail; set -f -C; shopt -s nullglob extglob",
    "zsh": "setopt err_exit no_unset ksh_arrays sh_word_split no_clobber no_function_argzero no_prompt_percent",
}


@SHELLS
@pytest.mark.parametrize("mode", ["succeed", "fail"])
def test_options_variables_folder_arguments_and_traps_of_the_caller_are_unchanged(project, shell, mode):
    # The second look in a row: the first one makes variables of its own.
    code = f"""dump() {{ {DUMP[shell]}; }}
        set -- --data x; FOO="a b"; alias cd=false; trap 'echo bye' EXIT; {ODD_OPTIONS[shell]}
        before=; after=; before=$(dump "$@"); before=$(dump "$@")
        if source "$S" --no-detectron2; then echo sourced; else echo refused; fi
        after=$(dump "$@")
        echo "====="; printf '%s\\n' "$before"; echo "====="; printf '%s\\n' "$after"; echo "=====" """
    result = project.run(shell, code, PIP_MODE=mode)
    said, before, after, end = result.stdout.split("=====\n")
    assert ("sourced" if mode == "succeed" else "refused") in said, result
    assert end == "bye\n"
    activation = {"deactivate", "PS1", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"}
    activation |= {"_OLD_VIRTUAL_PATH", "_OLD_VIRTUAL_PS1"} if mode == "succeed" else set()
    assert "a b" in before
    assert set(before.splitlines()) ^ set(after.splitlines()) <= (activation if mode == "succeed" else set())


def test_the_arguments_of_a_script_that_sources_it_are_not_taken_for_options(project):
    job = project.program("job.sh", 'source "$S" && echo "$VIRTUAL_ENV $*"\n')
    result = project.run("bash", f'bash "{job}" --data photos')
    assert result.stdout.endswith(f"{project.venv} --data photos\n"), result


@SHELLS
@pytest.mark.parametrize("damage", ["interrupted", "python is gone", "pip is gone", "moved", "package is gone"])
def test_a_damaged_environment_is_repaired(project, shell, damage):
    project.set_up(shell, PIP_MODE="die" if damage == "interrupted" else "succeed")
    (project.venv / "leftover").touch()
    if damage == "python is gone":
        for python in (project.venv / "bin").glob("python*"):
            python.unlink()
    elif damage == "pip is gone":
        shutil.rmtree(next(project.venv.glob("lib/python3*/site-packages/pip")))
    elif damage == "package is gone":
        shutil.rmtree(next(project.venv.glob("lib/python3*/site-packages/torch-*")))
    elif damage == "moved":
        moved = project.folder.with_name("moved")
        project.folder = project.folder.rename(moved)
    project.calls()
    active = project.venv / "bin"  # as in the shell of somebody who works in it
    result = project.set_up(shell, FIRST=str(active), VIRTUAL_ENV=str(project.venv))
    assert result.stdout.endswith(f"status 0 venv {project.venv}\n"), result
    assert any(call.startswith("pip install") for call in project.calls())
    assert (project.venv / "leftover").exists() == (damage == "package is gone")  # this one needs no new start


def test_an_edit_of_the_requirements_is_installed(project):
    project.set_up()
    project.calls()
    with open(project.folder / "requirements.txt", "a") as requirements:
        requirements.write("scipy>=1\n")
    project.set_up()
    assert any("-r requirements.txt" in call for call in project.calls())


@SHELLS
def test_another_active_environment_is_replaced_by_ours(project, shell):
    other = project.bin / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--copies", other], check=True)
    shutil.copy(project.bin / "python3", other / "bin/python3")
    result = project.run(shell, f'source "{other}/bin/activate"; source "$S"; command -v python; echo $VIRTUAL_ENV')
    assert result.stdout.endswith(f"{project.venv}/bin/python\n{project.venv}\n")


@SHELLS
def test_an_unknown_option_is_refused_and_help_is_shown_with_nothing_made(project, shell):
    refused = project.set_up(shell, "--no-detectron")
    assert "'--no-detectron'" in one_line(refused.stderr)
    assert refused.stdout == "status 1 venv none\n"
    shown = project.set_up(shell, "--help")
    assert all(
        option in shown.stdout for option in ["--no-detectron2", "--detectron2", "PYTHON=", "DETECTRON2_SOURCE="]
    )
    assert shown.stdout.endswith("status 0 venv none\n")
    assert not project.venv.exists()


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("import sys; sys.version_info = (3, 8, 18, 'final', 0)", ["3.8.18", "3.10 or newer"]),
        ("import sys; sys.modules['ensurepip'] = None", ["venv module", "python3-venv"]),
        ("raise SystemExit(127)", ["no Python found", "3.10 or newer"]),
    ],
    ids=["too old", "no venv module", "missing"],
)
def test_an_unusable_python_is_named_in_one_line(project, before, words):
    python = project.program("mine", f'#!/bin/sh\nexec "{sys.executable}" -c "{before}\n$2"\n')
    result = project.set_up(PYTHON=str(python))
    assert result.stdout == "status 1 venv none\n"
    assert all(word in one_line(result.stderr) for word in [*words, str(python)])
    assert not project.venv.exists()


def detectron2_tree(folder: Path) -> Path:
    """A folder that looks like detectron2's source to the set-up."""
    (folder / "detectron2/engine").mkdir(parents=True)
    (folder / "detectron2/__init__.py").touch()
    (folder / "detectron2/engine/__init__.py").write_text("DefaultTrainer = None\n")
    return folder


def test_detectron2_left_out_is_not_looked_for_and_not_tried_by_the_next_call(project):
    result = project.set_up(options="--no-detectron2")
    assert result.stdout.endswith(f"status 0 venv {project.venv}\n")
    project.set_up()
    assert not [call for call in project.calls() if call.startswith("git") or "fvcore" in call]
    project.set_up(options="--detectron2")
    assert [call for call in project.calls() if call.startswith("git ls-remote")]


def test_a_local_detectron2_tree_is_importable_and_stays_for_later_calls(project):
    tree = detectron2_tree(project.bin / "d2")
    code = 'source "$S" && python -c "import detectron2; print(detectron2.__path__[0])"'
    first = project.run("bash", code, DETECTRON2_SOURCE="d2")
    assert first.stdout.endswith(f"{tree}/detectron2\n"), first
    assert [call for call in project.calls() if "fvcore" in call]
    later = project.run("bash", code)
    assert later.stdout.endswith(f"{tree}/detectron2\n"), later
    assert project.calls() == []


def test_a_detectron2_source_that_is_none_is_refused_in_one_line(project):
    result = project.set_up(DETECTRON2_SOURCE="/no/such/tree")
    assert result.stdout == "status 1 venv none\n"
    assert "DETECTRON2_SOURCE=/no/such/tree" in one_line(result.stderr)
    assert not project.venv.exists()


def test_a_detectron2_that_does_not_import_is_left_out_with_the_reason(project):
    tree = detectron2_tree(project.bin / "d2")
    (tree / "detectron2/engine/__init__.py").write_text("import a_package_that_is_missing\n")
    result = project.set_up(DETECTRON2_SOURCE=str(tree))
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("no detectron2")]
    assert "a_package_that_is_missing" in line
    assert result.stdout.endswith(f"status 0 venv {project.venv}\n")
    assert project.run("bash", 'source "$S" && python -c "import detectron2"').returncode != 0


def test_a_hanging_network_costs_at_most_15_seconds_and_one_line_and_is_not_tried_again(project):
    project.set_up(options="--no-detectron2")
    start = time.monotonic()
    result = project.set_up(options="--detectron2", GIT_MODE="hang")
    assert time.monotonic() - start < 15
    assert result.stderr == ""
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("no detectron2")]
    assert "out of reach" in line and "--detectron2" in line
    assert result.stdout.endswith(f"status 0 venv {project.venv}\n")
    project.calls()
    project.set_up(GIT_MODE="hang")
    assert project.calls() == []


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_source_is_fetched_at_the_pinned_commit(project):
    tree, git = detectron2_tree(project.bin / "origin"), shutil.which("git")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([git, "init", "-q", tree], check=True)
    for message in ["pinned", "later"]:
        (tree / "detectron2/version.py").write_text(f"name = '{message}'\n")
        subprocess.run([git, "-C", tree, "add", "."], check=True)
        subprocess.run([git, *identity, "-C", tree, "commit", "-qm", message], check=True)
    commit = subprocess.check_output([git, "-C", tree, "rev-parse", "HEAD~1"], text=True).strip()
    script = project.folder / "install_packages.sh"
    lines = [
        f"detectron2_commit={commit}" if line.startswith("detectron2_commit=") else line
        for line in script.read_text().splitlines()
    ]
    lines = [f"detectron2_url='{tree.as_uri()}'" if line.startswith("detectron2_url=") else line for line in lines]
    script.write_text("\n".join(lines) + "\n")
    (project.bin / "git").unlink()
    code = 'source "$S" && python -c "import detectron2.version as v; print(v.name, v.__file__)"'
    result = project.run("bash", code, GIT_DIR="/somewhere/else")
    assert f"pinned {project.venv}" in result.stdout, result


TEST_COMMAND = "source install_packages.sh && pytest"


def test_ci_runs_the_test_command_of_the_readme():
    assert TEST_COMMAND in (ROOT / "README.md").read_text().splitlines()
    assert TEST_COMMAND in (ROOT / ".ci/run").read_text().splitlines()
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("status", [0, 5])
def test_ci_passes_on_the_exit_code_of_the_tests(project, status):
    result = project.run("bash", f'"{project.folder}/.ci/run"', PYTEST_STATUS=str(status))
    assert result.returncode == status
    assert f"tests ran in {project.folder}" in result.stdout


def test_ci_fails_with_a_line_when_the_set_up_fails(project):
    result = project.run("bash", f'"{project.folder}/.ci/run"', PYTEST_STATUS="0", PIP_MODE="fail")
    assert result.returncode == 1
    assert "no test was run" in result.stderr.splitlines()[-1]
    assert "tests ran" not in result.stdout
