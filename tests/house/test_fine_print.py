"""The fine print names tests and options; all of them exist."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from pixpro.config import Config, parse_args

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fine-print.md").read_text()


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("file, test", sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE))))
def test_a_test_that_the_page_names_exists(file, test):
    assert test in functions(ROOT / file)


def test_every_mistake_of_others_names_its_test():
    section = PAGE.partition("## What others got wrong")[2].partition("\n## ")[0]
    rows = [
        row
        for row in re.findall(r"^\|.*\|$", section, re.MULTILINE)
        if not re.match(r"\|[-|]+$|\| (there|where) ", row)
    ]
    assert len(rows) > 25
    assert all(re.search(r"`tests/[\w/]+\.py::test_\w+` \|$", row) for row in rows)


def test_every_option_that_the_page_names_exists():
    of_training = {field.name for field in dataclasses.fields(Config)}
    named = set(re.findall(r"`--(\w+)", PAGE))
    assert {"distance", "hidden_dim", "instance_loss", "init"} <= named
    assert named - {"hash", "format"} <= of_training


def test_an_unknown_loss_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_args(["--loss", "pixprop"])
    assert stopped.value.code == 2
    assert re.search("pixprop.*pixpro.*pixcontrast", capsys.readouterr().err)
