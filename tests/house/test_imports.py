"""The arrows between modules point one way: from the programs down to the method, never back."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = (
    "errors",
    "images scenes",
    "data",
    "method",
    "checkpoints",
    "visualize",
    "monitor",
    "training",
    "run",
    "plan",
    "command_line",
    "config",
)
RANK = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
FACE = ("__init__", "__main__")  # the public API and the commands: they stand in front of the whole house
PACKAGE = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "pixpro").rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, `from package import module` resolved."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in PACKAGE else node.module for a in node.names
            }
    return found


@pytest.mark.parametrize("module", PACKAGE)
def test_the_package_imports_nothing_that_stands_above_it(module):
    above = {name.partition(".")[0] for name in imports(PACKAGE[module])}
    assert not above & {"train", "downstream", "benchmarks", "tests", "hubconf"}


def room(module: str) -> str:
    """The part of a module's name below `pixpro`: its room, or its own name at the top of the package."""
    return (module.split(".") + ["__init__"])[1]


def test_every_room_has_its_floor():
    there = {path.stem if path.is_file() else path.name for path in (ROOT / "pixpro").glob("[!_]*")}
    assert there - {"__pycache__", "py.typed"} == set(RANK)


@pytest.mark.parametrize(
    "module", [name for name in PACKAGE if room(name) not in FACE and not name.endswith("__main__")]
)
def test_imports_go_down_and_never_up(module):
    own = room(module)
    up = {
        name
        for name in imports(PACKAGE[module])
        if name.startswith("pixpro.") and room(name) != own and RANK.get(room(name), 99) >= RANK[own]
    }
    assert not up, f"{module} stands on floor {RANK[own]} and imports {sorted(up)}"


def test_the_method_knows_no_files_processes_or_settings():
    below = {room(name) for m in PACKAGE if room(m) == "method" for name in imports(PACKAGE[m]) if "pixpro." in name}
    assert below - {"method"} == {"data"}
    named = {
        name for m in PACKAGE if room(m) == "method" for name in imports(PACKAGE[m]) if name.startswith("pixpro.data")
    }
    assert named == {"pixpro.data.views"}  # the View that it is given


def test_only_train_reads_the_settings():
    readers = [module for module, path in PACKAGE.items() if "pixpro.config" in imports(path)]
    assert readers == []
    assert "pixpro.config" in imports(ROOT / "train.py")


def test_no_module_reaches_itself():
    graph = {module: imports(path) & PACKAGE.keys() - {module} for module, path in PACKAGE.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_arrows_that_point_back_are_found(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from pixpro import config\n    import downstream.detect\n")
    assert imports(wrong) == {"pixpro.config", "downstream.detect"}
