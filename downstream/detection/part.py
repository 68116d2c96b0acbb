"""A fixed part of the training images, and the schedule that goes with it: the semi-supervised experiment on COCO.

The paper (arXiv:2011.10043) fine-tunes on 10 % of COCO's training images for the 90,000 iterations of the whole, and on
1 % for 9,000; that is as remembered, not checked against its text. Which images those were is not known.
"""

import hashlib
from typing import NamedTuple


class Part(NamedTuple):
    """A share of the training images in 0..1, drawn by a seed."""

    share: float
    seed: int = 0

    def chosen(self, count: int) -> list[int]:
        """Which of `count` images belong to it, in order; at least one.

        A hash orders them: the same with every version of every library, and the smaller part lies in the larger.
        """
        order = sorted(range(count), key=lambda index: hashlib.sha256(f"{self.seed} {index}".encode()).digest())
        return sorted(order[: max(1, round(self.share * count))])

    @property
    def length(self) -> float:
        """Length of the schedule, in published ones: 1 for a tenth of the images, a tenth for a hundredth."""
        return min(1.0, 10 * self.share)

    def note(self, count: int, of: int) -> str:
        """The line that says what is trained on."""
        return (
            f"{count} of {of} training images ({100 * self.share:g} %, seed {self.seed}); "
            f"{self.length:g} times the published number of iterations, as in the paper (not checked against its text)"
        )
