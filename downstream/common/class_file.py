"""A text file with a class name on each line -> the classes to use, in this order."""

import argparse
from pathlib import Path


def class_names(path: str) -> list[str]:
    """The names, for argparse: whatever is wrong with the file is an ArgumentTypeError."""
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
