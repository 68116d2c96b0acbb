"""Recipes: where defaults come from, what the command line keeps of its own, and what is said of it."""

import pytest

from pixpro.config import parse_args, settle
from pixpro.errors import UserError
from pixpro.plan.recipes import SMALL, SMALL_PIXPRO, recipe_line


@pytest.mark.parametrize("loss, expected", [("pixpro", SMALL_PIXPRO), ("pixcontrast", SMALL)])
def test_the_small_recipe_sets_defaults_that_flags_overrule(loss, expected):
    config = parse_args(["--recipe", "small", "--loss", loss])
    assert {name: getattr(config, name) for name in expected} == expected
    assert (config.arch, config.instance_weight) == ("resnet50", 1.0 if loss == "pixpro" else 0.0)
    own = parse_args(["--recipe", "small", "--loss", loss, "--batch_size", "64", "--neck", "fpn", "--levels", "3", "4"])
    assert (own.batch_size, own.neck, own.levels, own.image_size) == (64, "fpn", [3, 4], SMALL["image_size"])


def test_the_demo_is_pixpro_by_the_small_recipe():
    demo, small = parse_args(["--demo"]), parse_args(["--recipe", "small"])
    assert (demo.loss, demo.recipe, demo.arch) == ("pixpro", "small", "resnet18")
    assert all(getattr(demo, name) == getattr(small, name) for name in SMALL_PIXPRO)


def test_a_recipe_is_told_as_the_flags_it_stands_for():
    told = recipe_line(vars(parse_args(["--recipe", "small", "--epochs", "7"])))
    assert told.startswith("recipe small: --neck stage --levels 3 ") and told.count("\n") == 1
    again = parse_args(told.removeprefix("recipe small: ").split())
    assert all(getattr(again, name) == value for name, value in (SMALL_PIXPRO | {"epochs": 7}).items())
    assert recipe_line(vars(parse_args([]))) == ""


def test_the_stage_is_one_level():
    with pytest.raises(UserError, match="expected one level"):
        settle(parse_args(["--neck", "stage"]))
