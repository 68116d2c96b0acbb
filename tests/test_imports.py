"""The arrows between modules point one way: from the programs down to the method, never back."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHOD = {
    *("encoder", "geometry", "heads", "instance", "losses", "model", "momentum", "neck", "optim", "ppm", "precision"),
    *("chunks", "schedules", "sync_batchnorm"),
}
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


@pytest.mark.parametrize("module", sorted(METHOD))
def test_the_method_knows_no_files_processes_or_settings(module):
    allowed = {f"pixpro.{name}" for name in METHOD | {"views"}}
    ours = {name for name in imports(PACKAGE[f"pixpro.{module}"]) if name.startswith("pixpro")}
    assert ours <= allowed


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
