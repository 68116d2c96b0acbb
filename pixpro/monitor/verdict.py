"""The last rows of metrics -> plain lines about what looks wrong and what to try: a pure function.

The thresholds come from runs that were made to fail beside runs that did not: docs/what-is-normal.md shows them.
"""

import math
from collections import deque
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

Row = dict[str, Any]  # one line of metrics.jsonl: None, or not finite, where a number was not

RECENT = 3  # rows that must agree
COLLAPSED_RANK = 1.25  # of the momentum targets; the prediction's falls to 1 in healthy runs too, while they warm up
ALIKE_WITHIN = 1.1  # rank within images; equal cells give 1
MANY_APART = 0.5  # share of crop pairs without a common place; 2 to 6 % with the published crops
LARGE_STEP = 0.05  # of a matrix by one step: ten of them, which is what momentum 0.9 remembers, replace half of it
SMALL_PATH = 0.02  # change of a matrix over the whole run
LONG_WAIT = 0.25  # share of the time


class Finding(NamedTuple):
    """Something that looks wrong: its kind, a colon, what was seen, and what to try."""

    text: str

    @property
    def kind(self) -> str:
        return self.text.partition(":")[0]


def verdicts(rows: Sequence[Row], *, peak_lr: float, total_steps: int) -> list[Finding]:
    """What looks wrong in the last rows of a run, the gravest first; empty for a healthy one.

    rows: reports of training steps, oldest first; keys that are missing are not judged.
    peak_lr: highest learning rate of the schedule, of total_steps.
    """
    recent = rows[-RECENT:]
    if len(recent) < RECENT:
        return []
    findings = [
        not_finite(recent),
        collapse(recent) or collapse_within(recent),
        no_overlap(recent),
        step_size(recent, peak_lr, total_steps),
        data_wait(recent),
    ]
    return [finding for finding in findings if finding is not None]


def finite(row: Row, name: str) -> bool:
    """Whether the row has this number."""
    return row.get(name) is not None and math.isfinite(row[name])


def values(rows: Sequence[Row], name: str) -> list[float]:
    """The finite values of one number."""
    return [row[name] for row in rows if finite(row, name)]


def fallen(rows: Sequence[Row], name: str, limit: float) -> float | None:
    """The last value of a rank that all rows have and that is below its limit in all of them; None of any other."""
    ranks = values(rows, name)
    return ranks[-1] if len(ranks) == len(rows) and max(ranks) < limit else None


def not_finite(rows: Sequence[Row]) -> Finding | None:
    """Losses or features that are not numbers any more."""
    bad = sum(any(name in row and not finite(row, name) for name in ("loss", "target_rank")) for row in rows)
    if bad < 2:
        return None
    return Finding(
        "diverging: the loss or the features are not finite; go back to an earlier checkpoint and try a lower "
        "--lr_base, a longer --warmup_epochs, or --amp bf16 or off in place of fp16",
    )


def collapse(rows: Sequence[Row]) -> Finding | None:
    """Targets that point in one direction whatever the image shows: agreement is then free."""
    rank = fallen(rows, "target_rank", COLLAPSED_RANK)
    if rank is None:
        return None
    agreement = values(rows, "agreement")
    loss = f"agreement {agreement[-1]:.2f} means nothing" if agreement else "the loss means nothing"
    return Finding(
        f"collapse: all cells look alike to the momentum encoder (effective rank {rank:.2f} of the targets; "
        f"healthy runs keep it above {COLLAPSED_RANK:g}), so that {loss}. Start again with a lower "
        "--lr_base, a longer --warmup_epochs, or --momentum_base 0.99 or more, and check that the images differ",
    )


def collapse_within(rows: Sequence[Row]) -> Finding | None:
    """Targets that tell images apart but not the places of an image: agreement is then free, wherever the crops lie."""
    rank = fallen(rows, "within_image_rank", ALIKE_WITHIN)
    if rank is None:
        return None
    images = values(rows, "target_rank")
    apart = f", while images differ (rank {images[-1]:.1f} of all)" if images else ""
    return Finding(
        f"collapse within images: all cells of an image look alike to the momentum encoder (effective rank "
        f"{rank:.2f} within images; healthy runs keep it above {ALIKE_WITHIN:g}){apart}: nothing dense is "
        "learned. Start again with cells that see less than the whole crop (a larger --image_size, or --neck stage "
        "--levels 3), a --threshold near 0.7, or a lower --lr_base",
    )


def no_overlap(rows: Sequence[Row]) -> Finding | None:
    """Crops that mostly show different places: most images then teach nothing."""
    shares = values(rows, "without_overlap")
    if not shares or fmean(shares) <= MANY_APART:
        return None
    return Finding(
        f"no overlap: {fmean(shares):.0%} of the crop pairs share no place, and such images teach nothing; raise "
        "--crop_min or --threshold; python -m pixpro check tells the share that a data set gives",
    )


def step_size(rows: Sequence[Row], peak_lr: float, total_steps: int) -> Finding | None:
    """A learning rate, at its peak, that replaces the weights in a few steps or hardly moves them in the whole run."""
    ratios = [row["update_size"] / row["lr"] for row in rows if finite(row, "update_size") and row["lr"] > 0]
    if not ratios:
        return None
    peak = median(ratios) * peak_lr
    if peak > LARGE_STEP:
        return Finding(
            f"learning rate: at its peak of {peak_lr:.4g} each step changes a layer by {peak:.0%} of itself, which "
            f"erases what was learned (usual: 0.1 to 1 %); divide --lr_base by {peak / 0.004:.0f}",
        )
    # Momentum 0.9 sums ten steps; the mean of a cosine is half its peak.
    path = peak * total_steps * 5
    if path < SMALL_PATH:
        return Finding(
            f"learning rate: with a peak of {peak_lr:.4g} the {total_steps} steps change a layer by {path:.2%} of "
            "itself at most: little will be learned; raise --lr_base or train for more --epochs",
        )
    return None


def data_wait(rows: Sequence[Row]) -> Finding | None:
    """A network that waits for its images."""
    waits = values(rows, "data_wait")
    if not waits or fmean(waits) <= LONG_WAIT:
        return None
    return Finding(
        f"data wait: {fmean(waits):.0%} of the time goes into waiting for images; use more --workers, a faster disk "
        "or smaller files (resized to twice --image_size nothing is lost)",
    )


class Diagnosis:
    """Rows of one run, and what was said about them: each kind of finding once per epoch at most."""

    def __init__(self, *, peak_lr: float, total_steps: int) -> None:
        self.peak_lr, self.total_steps = peak_lr, total_steps
        self.first: Row = {}
        self.recent: deque[Row] = deque(maxlen=RECENT)
        self.said: dict[str, int] = {}  # kind -> epoch in which it was last said

    def new(self, row: Row) -> list[Finding]:
        """What the next row, with its `epoch`, and those before it give to say."""
        self.first = self.first or row
        self.recent.append(row)
        found = verdicts(list(self.recent), peak_lr=self.peak_lr, total_steps=self.total_steps)
        found = [finding for finding in found if self.said.get(finding.kind) != row["epoch"]]
        self.said |= {finding.kind: row["epoch"] for finding in found}
        return found

    def summary(self) -> str:
        """First and last numbers, and what looked wrong, in lines."""
        if not self.recent:
            return "health: nothing was left to train"
        first, last = self.first, self.recent[-1]
        names = {"loss": "loss", "agreement": "agreement", "target_rank": "effective rank of the targets"}
        told = [
            f"{label} {first[name]:.3g} at step {first['step']}, {last[name]:.3g} at step {last['step']}"
            for name, label in names.items()
            if finite(first, name) and finite(last, name)
        ]
        wrong = ", ".join(f"{kind} (last said in epoch {epoch})" for kind, epoch in self.said.items())
        return "\n".join([*told, f"health: {wrong or 'nothing looked wrong'}"])
