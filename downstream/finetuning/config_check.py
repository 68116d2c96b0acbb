"""Weights and config must mean the same images: the comparison that stops a run before it starts."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from downstream.conversion.weights_file import read_weights
from pixpro.errors import UserError

SHAPE_KEYS = tuple(f"MODEL.RESNETS.{name}" for name in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS"))
# The config keys that decide what a backbone computes from an image.
KEYS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1", *SHAPE_KEYS)


def check_config(expected: Mapping[str, Any], configured: Callable[[str], Any], source: str) -> None:
    """Raise UserError naming each key whose configured value is not the expected one.

    source: where the weights come from, for the message. Numbers may differ by 0.001.
    """
    wrong = [(key, configured(key), value) for key, value in expected.items() if not same(configured(key), value)]
    if wrong:
        told = "; ".join(f"{key} is {plain(found)}, the weights need {plain(value)}" for key, found, value in wrong)
        remedy = " ".join(f"{key} {quoted(value)}" for key, _, value in wrong)
        overlay = {"RGB": "weights_rgb.yaml", "BGR": "weights_msra.yaml"}.get(expected.get("INPUT.FORMAT"))
        raise UserError(
            f"the config does not fit the weights {source}: {told}. "
            f"Their overlay is configs/{overlay}; or add: {remedy}"
        )


def same(found: Any, expected: Any) -> bool:
    """Equality, for sequences by element, for numbers within 0.001."""
    if isinstance(expected, list | tuple):
        return (
            isinstance(found, list | tuple)
            and len(found) == len(expected)
            and all(same(*pair) for pair in zip(found, expected, strict=True))
        )
    if isinstance(expected, bool | str) or not isinstance(found, int | float):
        return found == expected
    return math.isclose(found, expected, abs_tol=1e-3)


def plain(value: Any) -> str:
    """The value as a config file would write it."""
    return str(list(value)) if isinstance(value, list | tuple) else str(value)


def quoted(value: Any) -> str:
    """The value as a shell takes it."""
    return f'"{plain(value)}"' if isinstance(value, list | tuple) else plain(value)


def weights_settings(path: Path) -> dict[str, Any]:
    """The settings that a local weight file needs.

    A .pkl says so itself; a .pth of detectron2 was trained with the config.yaml beside it.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}; make them with convert-pretrain-to-detectron2.py CHECKPOINT {path}")
    if path.suffix == ".pkl":
        return read_weights(path).expected
    if path.suffix == ".pth":
        return trained_settings(path.parent)
    raise UserError(
        f"{path.name} is no detectron2 weight file (.pkl or .pth); convert-pretrain-to-detectron2.py makes one"
    )


def trained_settings(folder: Path) -> dict[str, Any]:
    """The settings of the run whose config.yaml lies in the folder."""
    import yaml  # comes with detectron2

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        return {key: lookup(config, key) for key in KEYS}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot tell what the weights in {folder} expect: no readable config.yaml of their run beside them"
        ) from error


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key in nested mappings; KeyError or TypeError if there is none."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value
