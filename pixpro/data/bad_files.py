"""Files that could not be decoded: named once each, counted, and too many of them stop the run."""

import logging
import math

from pixpro.errors import UserError, printable
from pixpro.images import Images
from pixpro.images.decoding import BadImage, decode

LOG = logging.getLogger(__name__)
LISTED = 20  # bad files named in the message that stops a run


class BadFiles:
    """The bad files that this process has met.

    reasons: what is wrong with each, by name.
    """

    def __init__(self, source: Images, max_bad: float) -> None:
        self.source, self.max_bad = source, max_bad
        self.reasons: dict[str, str] = {}
        self._indices: set[int] = set()

    def note(self, found: list[int], seen: int, bad: int) -> None:
        """Name those of `found` that are new; raise UserError with the list when they are too many.

        seen, bad: samples of this epoch so far, and how many of them were bad.
        """
        for index in found:
            if index in self._indices:
                continue
            self._indices.add(index)
            name, reason = printable(self.source.name(index)), why_bad(self.source, index)
            self.reasons[name] = reason
            LOG.warning("bad image file, another one is used in its place: %s (%s)", name, reason)
        # Of a part of the data only a rate is known; five standard deviations above the limit are no accident.
        expected = self.max_bad * seen
        if len(self._indices) > self.max_bad * len(self.source) or bad > expected + 5 * math.sqrt(expected) + 5:
            listed = "; ".join(f"{name} ({reason})" for name, reason in list(self.reasons.items())[:LISTED])
            more = len(self._indices) - LISTED
            raise UserError(
                f"{len(self._indices)} bad image files of {len(self.source)}, more than the allowed share of "
                f"{self.max_bad:g}: {listed}{f'; and {more} more' if more > 0 else ''}; "
                "remove or repair them, or allow more with --max_bad"
            )


def why_bad(source: Images, index: int) -> str:
    """What is wrong with a file."""
    try:
        decode(source.read(index))
    except BadImage as error:
        return printable(str(error))
    return "could not be read a moment ago, can be now"
