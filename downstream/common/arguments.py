"""Words of a command line -> values, for argparse; without what takes long to import."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def class_names(path: str) -> list[str]:
    """The classes to use: the names in a text file, one on each line."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path!r} cannot be read: {str(error)[:120]!r}") from error
    names = [line.strip() for line in lines if line.strip()]
    wrong = [name for name in names if len(name) > 200 or not name.isprintable()]
    if not names or wrong:
        raise argparse.ArgumentTypeError(f"{path!r} has {'no' if not names else 'unprintable'} class names")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise argparse.ArgumentTypeError(f"{path!r} names {twice[:40]!r} twice")
    return names


def number(name: str, kind: type, fits: Callable[[Any], bool], expected: str) -> Callable[[str], Any]:
    """A reader of numbers that fit; name: what argparse calls it where the text is no number at all."""

    def read(text: str) -> Any:
        value = kind(text)
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text} is not {expected}")
        return value

    read.__name__ = name
    return read


positive = number("positive", int, lambda value: value >= 1, "above zero")
natural = number("natural", int, lambda value: 0 <= value <= 2**31, "between 0 and 2^31")
positive_float = number("positive_float", float, lambda value: 0 < value < math.inf, "a number above zero")
share = number("share", float, lambda value: 0 < value < 1, "between 0 and 1")
