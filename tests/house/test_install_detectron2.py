"""Set-up: how install_packages.sh gets detectron2, leaves it out, and says so."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.setup_project import Project, one_line


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


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
