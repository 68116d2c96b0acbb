"""The arrows between modules point one way: from the programs down to the method, never back."""

import shutil
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.house.rooms import FACE, RANK, ROOT, arrows, imports, main, modules, room, runs_up

PACKAGE = modules(ROOT)


@pytest.mark.parametrize("module", PACKAGE)
def test_the_package_imports_nothing_that_stands_above_it(module):
    above = {name.partition(".")[0] for name in imports(PACKAGE[module], PACKAGE)}
    assert not above & {"train", "downstream", "benchmarks", "tests", "hubconf"}


def test_every_room_has_its_floor_and_they_are_few():
    there = [path for path in (ROOT / "pixpro").glob("[!_]*") if path.name != "py.typed"]
    assert {path.stem if path.is_file() else path.name for path in there} == set(RANK)
    assert len(RANK) <= 13


@pytest.mark.parametrize("module", [name for name in PACKAGE if room(name) not in FACE])
def test_imports_go_down_and_never_up(module):
    used = {name for name in imports(PACKAGE[module], PACKAGE) if name.startswith("pixpro.")}
    up = {name for name in used if room(name) != room(module) and runs_up(room(module), room(name))}
    assert not up, f"{module} stands below {sorted(up)}, which it imports"


def test_the_method_knows_no_files_processes_or_settings():
    used = {name for m in PACKAGE if room(m) == "method" for name in imports(PACKAGE[m], PACKAGE)}
    assert {n for n in used if n.startswith("pixpro.") and room(n) != "method"} == {"pixpro.data.views"}  # its View


def test_only_train_reads_the_settings():
    readers = [module for module, path in PACKAGE.items() if "pixpro.config" in imports(path, PACKAGE)]
    assert readers == []
    assert "pixpro.config" in imports(ROOT / "train.py", PACKAGE)


def test_no_module_reaches_itself():
    graph = {module: imports(path, PACKAGE) & PACKAGE.keys() - {module} for module, path in PACKAGE.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_an_import_that_runs_up_is_found(tmp_path, capsys):
    shutil.copytree(ROOT / "pixpro", tmp_path / "pixpro", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "train.py").write_text("")
    assert main(["--root", str(tmp_path)]) == 0
    wrong = tmp_path / "pixpro" / "method" / "wrong.py"
    wrong.write_text("def f():\n    from pixpro import run\n    import downstream.detect\n")
    known = modules(tmp_path)
    assert imports(wrong, known) == {"pixpro.run", "downstream.detect"}
    assert ("method", "run") in arrows(tmp_path)
    assert main(["--root", str(tmp_path)]) == 1
    assert "up: method -> run" in capsys.readouterr().out


def test_the_house_is_drawn(tmp_path):
    assert main(["--out", str(tmp_path / "rooms.png")]) == 0
    assert (tmp_path / "rooms.png").read_bytes().startswith(b"\x89PNG")
