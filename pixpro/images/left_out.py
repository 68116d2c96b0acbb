"""What lies beside the images and is not used: how many of each kind, why, and the first of them."""

import json
import os

import numpy as np

from pixpro.errors import printable
from pixpro.images.kinds import Kind, kind_of

LISTED = 30  # kinds in the one line; `python -m pixpro check` names all


class LeftOut:
    """A tally of what is below one place, or in several of them."""

    def __init__(self, place: str = "") -> None:
        self.place = place
        self.found: dict[Kind, tuple[int, str]] = {}  # how many, and the first's path

    def add(self, kind: Kind, name: bytes | str, count: int = 1) -> None:
        """Count something by its path below the place."""
        before, first = self.found.get(kind) or (0, os.path.join(self.place, os.fsdecode(name)))
        self.found[kind] = before + count, first

    def add_file(self, name: bytes) -> None:
        """Count a file whose path alone says what it is."""
        self.add(kind_of(name), name)

    def merge(self, other: "LeftOut") -> None:
        """Count all that another tally holds."""
        for kind, (count, first) in other.found.items():
            self.add(kind, first, count)

    def __len__(self) -> int:
        return sum(count for count, _ in self.found.values())

    @property
    def missed(self) -> int:
        """How many of them may be images that somebody misses."""
        return sum(count for kind, (count, _) in self.found.items() if kind.missed)

    def lines(self, first: bool = True) -> list[str]:
        """One for each kind, the most important first; with the path of the first of those that have a reason."""
        order = sorted(self.found.items(), key=lambda item: (not item[0].missed, -item[1][0], item[0]))
        return [
            f"{count} {printable(kind.name)}"
            + (f" ({kind.why}{f'; first: {printable(path)}' if first else ''})" if kind.why else "")
            for kind, (count, path) in order
        ]

    def __str__(self) -> str:
        """One line; empty if nothing was left out."""
        lines = self.lines(first=False)
        if not lines:
            return ""
        more = f", and {len(lines) - LISTED} more kinds" if len(lines) > LISTED else ""
        more += "; `python -m pixpro check` says where" if self.missed else ""
        return f"{'warning: ' if self.missed else ''}left out {len(self)}: {', '.join(lines[:LISTED])}{more}"

    def array(self) -> np.ndarray:
        """Everything as bytes, for a file."""
        rows = [[*kind, *found] for kind, found in self.found.items()]
        return np.frombuffer(json.dumps([self.place, *rows]).encode(), dtype=np.uint8).copy()

    @classmethod
    def of(cls, array: np.ndarray) -> "LeftOut":
        """The tally that `array` was made from."""
        place, *rows = json.loads(array.tobytes())
        tally = cls(place)
        tally.found = {Kind(*kind): (count, first) for *kind, count, first in rows}
        return tally
