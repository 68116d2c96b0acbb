"""Set-up: install_packages.sh and .ci/run in each shell, with stand-ins for pip and git (nothing is downloaded)."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers.setup_project import ROOT, SHELLS, Project, one_line


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@SHELLS
def test_the_first_call_installs_and_activates_and_the_second_only_activates(project, shell):
    first = project.set_up(shell)
    assert first.stdout.endswith(f"status 0 venv {project.venv}\n"), first
    assert "pip install --quiet -r requirements.txt -e .[test]" in project.calls()
    second = project.run(shell, 'source "$S" && command -v python pytest')
    assert second.stdout.endswith(f"{project.venv}/bin/python\n{project.venv}/bin/pytest\n"), second
    assert second.stderr == ""
    assert project.calls() == []


def test_timm_is_added_when_asked_for_and_only_then(project):
    first = project.set_up("bash", "--no-detectron2")
    assert first.stdout.endswith(f"status 0 venv {project.venv}\n") and "timm" not in " ".join(project.calls())
    added = project.set_up("bash", "--timm --no-detectron2")
    assert added.stdout.endswith(f"status 0 venv {project.venv}\n"), added
    assert project.calls() == ["pip install --quiet -e .[timm]"]
    failed = project.set_up("bash", "--timm", PIP_MODE="fail")
    assert failed.stdout.endswith("status 1 venv none\n") and "could not install timm" in one_line(failed.stderr)


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


@pytest.mark.parametrize("damage", ["interrupted", "python is gone", "pip is gone", "moved", "package is gone"])
def test_a_damaged_environment_is_repaired(project, damage):
    project.set_up(PIP_MODE="die" if damage == "interrupted" else "succeed")
    (project.venv / "leftover").touch()
    if damage == "python is gone":
        for python in (project.venv / "bin").glob("python*"):
            python.unlink()
    elif damage == "pip is gone":
        shutil.rmtree(next(project.venv.glob("lib/python3*/site-packages/pip")))
    elif damage == "package is gone":
        shutil.rmtree(next(project.venv.glob("lib/python3*/site-packages/torch-*")))
    elif damage == "moved":
        project.folder = project.folder.rename(project.folder.with_name("moved"))
    project.calls()
    active = project.venv / "bin"  # as in the shell of somebody who works in it
    result = project.set_up(FIRST=str(active), VIRTUAL_ENV=str(project.venv))
    assert result.stdout.endswith(f"status 0 venv {project.venv}\n"), result
    assert any(call.startswith("pip install") for call in project.calls())
    assert (project.venv / "leftover").exists() == (damage == "package is gone")  # this one needs no new start


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")
def test_two_calls_at_the_same_time_install_once(project):
    gate = project.bin / "gate"
    os.mkfifo(gate)
    first = project.start("bash", 'source "$S" --no-detectron2', PIP_MODE="wait", GATE=str(gate))
    with open(gate, "w"):  # opens when pip of the first call reads it, and is held until the second call waits
        second = project.start("bash", 'source "$S" --no-detectron2 && echo "$VIRTUAL_ENV"')
        assert "waiting" in second.stdout.readline()
    assert first.wait(60) == 0
    assert second.communicate(timeout=60)[0].endswith(f"{project.venv}\n")
    assert len([call for call in project.calls() if call.startswith("pip")]) == 1


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
        ("import sys; sys.version_info = (3, 8, 18, 'final', 0)", ["3.8.18", "3.11 or newer"]),
        ("import sys; sys.modules['ensurepip'] = None", ["venv module", "python3-venv"]),
        ("raise SystemExit(127)", ["no Python found", "3.11 or newer"]),
    ],
    ids=["too old", "no venv module", "missing"],
)
def test_an_unusable_python_is_named_in_one_line(project, before, words):
    python = project.program("mine", f'#!/bin/sh\nexec "{sys.executable}" -c "{before}\n$2"\n')
    result = project.set_up(PYTHON=str(python))
    assert result.stdout == "status 1 venv none\n"
    assert all(word in one_line(result.stderr) for word in [*words, str(python)])
    assert not project.venv.exists()


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
