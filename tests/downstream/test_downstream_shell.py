"""The fine-tuning scripts, sourced and executed, in bash and zsh: right arguments, friendly lines, no trace left."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOWNSTREAM = Path(__file__).resolve().parents[2] / "downstream"
# Script -> program, config, overlay, weights, folder below output/.
SCRIPTS = {
    "train_voc_base.sh": ("train_voc", "voc_c4_24k", "msra", "R-50", "voc_c4_24k_base"),
    "train_voc_pixpro.sh": ("train_voc", "voc_c4_24k", "rgb", "pixpro", "voc_c4_24k_pixpro"),
    "train_voc_pixcontrast.sh": ("train_voc", "voc_c4_24k", "rgb", "pixcontrast", "voc_c4_24k_pixcontrast"),
    "train_coco_base.sh": ("train_coco", "coco_c4_1x", "msra", "R-50", "coco_c4_1x_base"),
    "train_coco_pixpro.sh": ("train_coco", "coco_c4_1x", "rgb", "pixpro", "coco_c4_1x_pixpro"),
    "train_coco_pixcontrast.sh": ("train_coco", "coco_c4_1x", "rgb", "pixcontrast", "coco_c4_1x_pixcontrast"),
    "train_coco_fpn_pixpro.sh": ("train_coco", "coco_fpn_1x", "rgb", "pixpro", "coco_fpn_1x_pixpro"),
}
SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not on this machine"))
    for name in ("bash", "zsh")
]
# The state that a script could change, without what changes by itself from one command to the next.
STATE = {
    "bash": "{ set -o; shopt; set; trap; umask; pwd; } "
    "| grep -vE '^(_|BASH_ARG[CV]|BASH_LINENO|FUNCNAME|LINENO|PIPESTATUS|S?RANDOM|SECONDS|EPOCH|BASHPID)'",
    "zsh": "{ setopt; unsetopt; set; functions; trap; umask; pwd; } "
    "| grep -avE '^(_|[?]|[!]|[$]|0=|LINENO|RANDOM|SECONDS|EPOCH|status|pipestatus|ZSH_SUBSHELL|TTYIDLE|funcstack)'",
}


@pytest.fixture
def scripts(tmp_path):
    """A copy of the scripts in a folder with a space, beside no virtual environment."""
    folder = tmp_path / "a copy" / "downstream"
    shutil.copytree(DOWNSTREAM, folder, ignore=shutil.ignore_patterns("datasets", "output", "*.pkl", "__pycache__"))
    return folder


@pytest.fixture
def recorder(tmp_path):
    """Environment in which `python` writes its arguments and data folder, a line each, and exits with 7."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    python = binaries / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$DETECTRON2_DATASETS" "$@" > "{tmp_path}/called"\nexit 7\n')
    python.chmod(0o755)
    return environment(PATH=f"{binaries}:{os.environ['PATH']}")


def environment(**changes):
    """The environment without anything that names an installation or a data folder, and with these changes."""
    hidden = ("PYTHONPATH", "DETECTRON2_DATASETS", "VIRTUAL_ENV", "CONDA_PREFIX", "ENV", "BASH_ENV")
    return {key: value for key, value in os.environ.items() if key not in hidden} | changes


def shell(name, commands, cwd, env):
    """The finished shell, started without the user's start-up files."""
    start = [name, "--norc"] if name == "bash" else [name, "-f"]
    return subprocess.run([*start, "-c", commands], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def quoted(path):
    return f"'{path}'"


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", SHELLS)
@pytest.mark.parametrize("sourced", [True, False], ids=["sourced", "executed"])
def test_each_script_starts_its_own_run_with_the_users_arguments(tmp_path, scripts, recorder, script, name, sourced):
    ran = shell(
        name,
        f"{'source' if sourced else ''} {quoted(scripts / script)} SOLVER.MAX_ITER 100 'A KEY' ''; echo $?",
        cwd=tmp_path,
        env=recorder,
    )
    assert (ran.stdout, ran.stderr) == ("7\n", "")
    program, config, overlay, weights, output = SCRIPTS[script]
    file = scripts / f"{weights}.pkl" if weights != "R-50" else "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    assert (tmp_path / "called").read_text().splitlines() == [
        str(scripts / "datasets"),
        str(scripts / f"{program}.py"),
        "--config-file",
        str(scripts / f"configs/{config}.yaml"),
        "--overlay",
        str(scripts / f"configs/weights_{overlay}.yaml"),
        "--weights",
        str(file),
        "--output-dir",
        str(scripts / "output" / output),
        "SOLVER.MAX_ITER",
        "100",
        "A KEY",
        "",
    ]
    assert (scripts / f"configs/{config}.yaml").is_file() and (scripts / f"configs/weights_{overlay}.yaml").is_file()


def test_no_two_scripts_write_into_one_folder():
    assert {path.name for path in DOWNSTREAM.glob("train_*.sh")} == set(SCRIPTS)
    assert len({output for *_, output in SCRIPTS.values()}) == len(SCRIPTS)


@pytest.mark.parametrize("name", SHELLS)
def test_sourcing_leaves_no_trace_in_the_callers_shell(tmp_path, scripts, recorder, name):
    options = {
        "bash": "set -u; set -o noglob; set -o noclobber; shopt -s nullglob",
        "zsh": "setopt nounset noglob noclobber ksharrays shwordsplit",
    }[name]
    commands = f"""
        {options}
        file=mine here=mine script=mine config=mine weights=mine overlay=mine python=mine
        trap 'echo bye' EXIT
        snapshot() {{ {STATE[name]}; }}
        before=$(snapshot)
        source {quoted(scripts / "train_voc_pixpro.sh")} SOLVER.MAX_ITER 1
        code=$?
        after=$(snapshot)
        echo "code $code"
        diff <(print_lines "$before") <(print_lines "$after")
    """
    commands = "print_lines() { printf '%s\\n' \"$1\"; }\n" + commands
    ran = shell(name, commands, cwd=tmp_path, env=recorder)
    differing = [line for line in ran.stdout.splitlines() if line[:1] in "<>" and "before=" not in line]
    assert "code 7" in ran.stdout and ran.stdout.endswith("bye\n"), ran.stdout + ran.stderr
    # `code` is the test's own variable, set between the two snapshots.
    assert [line for line in differing if not line.startswith("> code=")] == []


@pytest.mark.parametrize("name", SHELLS)
def test_a_failure_never_closes_a_shell_that_somebody_types_in(tmp_path, scripts, recorder, name):
    source = f"source {quoted(scripts / 'train_voc_pixpro.sh')}"
    start = [name, "--norc"] if name == "bash" else [name, "-f"]
    typed = subprocess.run(
        [*start, "-i", "-c", f"set -e; {source}; echo alive"],
        cwd=tmp_path,
        env=recorder,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )
    assert typed.stdout == "alive\n"
    # A script under `set -e` wants to stop there.
    ran = shell(name, f"set -e; {source}; echo alive", tmp_path, recorder)
    assert (ran.returncode, ran.stdout) == (7, "")


@pytest.mark.parametrize("name", SHELLS)
def test_a_relative_path_works_from_inside_the_folder_and_beside_it(scripts, recorder, tmp_path, name):
    for cwd, source in (
        (scripts, "source ./train_voc_base.sh"),
        (scripts.parent, "source downstream/train_voc_base.sh"),
    ):
        shell(name, source, cwd, recorder)
        assert (tmp_path / "called").read_text().splitlines()[1] == str(scripts / "train_voc.py")


def test_a_local_file_for_the_baseline_and_a_data_folder_are_taken(tmp_path, scripts, recorder):
    (scripts / "R-50.pkl").touch()
    shell("bash", f"{quoted(scripts / 'train_coco_base.sh')}", tmp_path, recorder | {"DETECTRON2_DATASETS": "/my data"})
    called = (tmp_path / "called").read_text().splitlines()
    assert called[0] == "/my data" and str(scripts / "R-50.pkl") in called


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_missing_is_said_in_a_line_each_with_code_2(tmp_path, scripts, script):
    binaries = tmp_path / "bin"
    binaries.mkdir()
    # -S hides all installed packages: neither torch nor detectron2.
    (binaries / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    (binaries / "python").chmod(0o755)
    ran = shell(
        "bash",
        f"source {quoted(scripts / script)} SOLVER.MAX_ITER 1; echo $?",
        cwd=tmp_path,
        env=environment(PATH=f"{binaries}:{os.environ['PATH']}"),
    )
    assert ran.stdout == "2\n"
    lines = ran.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    expected = ["no data: "] + ["no weights: "] * ("base" not in script) + ["torch is not installed"]
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert words in line
    assert "DETECTRON2_DATASETS" in lines[0] and "source install_packages.sh" in lines[-1]
    assert not (scripts / "output").exists()
