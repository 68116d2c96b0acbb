"""The implementations that the step benchmark compares, by the names of its command line."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.steps.contenders import floor, official, ours, packages
from benchmarks.steps.contenders.case import Case, Contestant, make_case

__all__ = ["CONTENDERS", "Case", "Contender", "Contestant", "make_case"]


class Contender(NamedTuple):
    """One row of the table."""

    title: str
    build: Callable[[Case], Contestant]
    pip: str = ""  # what installs it, where it is a package of others
    keeps_memory: bool = False  # as train.py does on a CPU; the others' authors leave the allocator as it is


def own(title: str, **options: bool) -> Contender:
    """A variant of our step, as train.py runs it."""
    return Contender(title, partial(ours.build, **options), keeps_memory=True)


CONTENDERS = {
    "ours": own("ours"),
    "ours_float32": Contender(
        "ours, float32", lambda case: ours.build(replace(case, amp_dtype=None)), keeps_memory=True
    ),
    "ours_default_allocator": Contender("ours, allocator as it comes", ours.build),
    "compiled": own("ours, encoders compiled", compiled=True, together=False),
    "apart": own("ours, a pass for each view", together=False),
    "together": own("ours, both views in one pass", together=True),
    "compiled_together": own("ours, compiled, both views in one pass", compiled=True, together=True),
    "compiled_graphs": own("the same as CUDA graphs", compiled=True, together=True, graphs=True),
    "official": Contender(
        "official step re-stated, its defaults (contiguous, autocast's own type)",
        lambda case: official.build(case, official.default_dtype(case.device), torch.contiguous_format),
    ),
    "official_same": Contender(
        "official step re-stated, our settings",
        lambda case: official.build(case, case.amp_dtype, torch.channels_last),
        keeps_memory=True,
    ),
    "official_float32": Contender(
        "official step re-stated, contiguous, float32",
        lambda case: official.build(case, None, torch.contiguous_format),
    ),
    "lucidrains": Contender("pixel-level-contrastive-learning", packages.pixel_cl, packages.LUCIDRAINS),
    "densecl": Contender(
        "lightly's DenseCL, both directions", partial(packages.densecl, example=False), packages.LIGHTLY
    ),
    "densecl_example": Contender(
        "lightly's DenseCL, as its example", partial(packages.densecl, example=True), packages.LIGHTLY
    ),
    "floor": Contender("floor: trunk alone", partial(floor.build, projector=False), keeps_memory=True),
    "floor_encoder": Contender("floor: trunk and projector", partial(floor.build, projector=True), keeps_memory=True),
}
