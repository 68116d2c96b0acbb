"""Words of a command line -> values, for argparse; without what takes long to import."""

import argparse
from pathlib import Path


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


def positive(text: str) -> int:
    """An integer above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def natural(text: str) -> int:
    """An integer from 0 to 2^31."""
    value = int(text)
    if not 0 <= value <= 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 2^31")
    return value


def positive_float(text: str) -> float:
    """A finite number above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above zero")
    return value


def share(text: str) -> float:
    """A number above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
