"""A training step looked at from outside -> numbers that answer whether the network is learning or collapsing."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pixpro.data.views import View
from pixpro.method.geometry import positive_pairs
from pixpro.method.model import DensePretraining, Passed, PixPro
from pixpro.method.numerics import PAIRS_AT_ONCE, at_least_float32, full_precision

CELLS = 1024  # cells whose spread and rank are measured: four times the channels, and an eigenvalue problem of 5 ms
IMAGES = 32  # images whose propagation weights are measured


class Observation:
    """What passed through a model in one step: filled while `observe` lasts, on the coarsest level if there are many.

    With accumulation it is the first micro-batch that is seen.
    """

    def __init__(self) -> None:
        self.views: tuple[View, View] | None = None
        self.projections: list[Tensor] = []  # of both views, (B, C, H, W) each
        self.predictions: list[Tensor] = []  # what the online branch made of them
        self.targets: list[Tensor] = []  # of the momentum encoder
        self.propagated = False  # whether predictions are other maps than projections

    def note(self, passed: Passed) -> None:
        """Keep the first forward pass that the model hands out."""
        if self.views is not None:
            return
        self.views = passed.views
        self.projections = [maps[-1].detach() for maps in passed.online]
        self.predictions = [maps[-1].detach() for maps in passed.predictions]
        self.targets = [maps[-1].detach() for maps in passed.targets]
        self.propagated = passed.predictions[0][-1] is not passed.online[0][-1]


@contextmanager
def observe(model: DensePretraining) -> Iterator[Observation]:
    """A region in which the model hands out what passes through it; outside nothing is kept and nothing is slower.

    Encoders that are compiled run so inside, too: nothing is hooked to them.
    """
    seen = Observation()
    model.watcher = seen.note
    try:
        yield seen
    finally:
        model.watcher = None


@torch.no_grad()
def health(seen: Observation, model: DensePretraining, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Numbers of a step that is over, each a scalar on the device; what they mean is in docs/what-is-normal.md.

    The gradients and the optimizer must be as the step left them.
    """
    assert seen.views is not None, "no step ran inside observe()"
    target, prediction = torch.cat(seen.targets), torch.cat(seen.predictions)
    with full_precision(target.device):
        numbers = pair_numbers(seen.views[0].box, seen.views[1].box, target.shape[2:], model.threshold)
        if seen.propagated:
            weights = cast(PixPro, model).propagation.similarity(seen.projections[0][:IMAGES])
            numbers["propagation_entropy"] = evenness(weights)
        numbers |= spread("prediction", prediction) | spread("target", target) | within_images(target)
        return numbers | step_numbers(model, optimizer)


def pair_numbers(boxes1: Tensor, boxes2: Tensor, size: Iterable[int], threshold: float) -> dict[str, Tensor]:
    """Positive pairs of cells per image, and the share of images whose crops show no common place."""
    height, width = size
    images = max(1, PAIRS_AT_ONCE // (height * width) ** 2)
    positives = positive_pairs(boxes1[:images], boxes2[:images], (height, width), threshold).sum(dim=(1, 2))
    return {"positives": positives.float().mean(), "without_overlap": (positives == 0).float().mean()}


def spread(name: str, maps: Tensor) -> dict[str, Tensor]:
    """Standard deviation and effective rank of the normalised cells of (B, C, H, W) maps.

    The deviation is the channels' mean times sqrt(C): 1 for directions spread evenly over the sphere, 0 for one.
    """
    cells = F.normalize(some_cells(at_least_float32(maps)), dim=1)
    deviation = cells.std(dim=0, correction=0).mean() * cells.shape[1] ** 0.5
    return {f"{name}_std": deviation, f"{name}_rank": effective_rank(cells)}


def within_images(maps: Tensor) -> dict[str, Tensor]:
    """The same of what tells the cells of an image apart: of normalised cells less their image's mean.

    In the rank the means count too, as one direction: it is 1 where all cells of an image are alike, also when faint
    noise around their mean points everywhere. Nothing for maps of one cell, which cannot differ from itself.
    """
    if maps.shape[2] * maps.shape[3] == 1:
        return {}
    cells = F.normalize(at_least_float32(maps), dim=1)
    rest = some_cells(cells - cells.mean(dim=(2, 3), keepdim=True))
    deviation = rest.square().mean(dim=0).sqrt().mean() * rest.shape[1] ** 0.5
    of_means = (1 - rest.square().sum(dim=1).mean()).clamp(min=0).sqrt() * len(rest) ** 0.5
    apart = F.pad(rest, (0, 1))  # a dimension of its own for the means, at a right angle to all differences
    row = F.pad(of_means[None], (rest.shape[1], 0))
    return {"within_image_std": deviation, "within_image_rank": effective_rank(torch.cat((apart, row[None])))}


def some_cells(maps: Tensor) -> Tensor:
    """Up to CELLS of the cells of (B, C, H, W) maps: (M, C)."""
    cells = maps.movedim(1, -1).flatten(0, 2)
    # A prime stride meets all places of a map; a round one might meet the same corner of every image.
    chosen = torch.arange(min(CELLS, len(cells)), device=cells.device) * 7919 % len(cells)
    return cells[chosen]


def effective_rank(cells: Tensor) -> Tensor:
    """exp(entropy of the eigenvalues' shares) of the second moments of unit vectors (M, C): 1 to min(M, C).

    The mean is not subtracted, so that one direction with noise around it counts as what it is: nearly 1.
    Roy and Vetterli 2007, on eigenvalues instead of singular values, which weigh noise less. NaN for NaN.
    """
    if not torch.isfinite(cells).all():
        return cells.new_tensor(torch.nan)
    moments = cells.T @ cells if cells.shape[0] > cells.shape[1] else cells @ cells.T
    shares = torch.linalg.eigvalsh(moments).clamp(min=0) / cells.square().sum()
    return torch.special.entr(shares).sum().exp()


def evenness(weights: Tensor) -> Tensor:
    """Mean entropy of the rows of non-negative weights (B, N, N) over that of equal weights.

    1 when a cell gathers from all cells of its view alike, 0 when from one alone; 1 for maps of a single cell.
    """
    if weights.shape[2] == 1:
        return weights.new_ones(())
    shares = weights / weights.sum(dim=2, keepdim=True)
    return torch.special.entr(shares).sum(dim=2).mean() / math.log(weights.shape[2])


def step_numbers(model: DensePretraining, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Size of the gradient over all parameters, and by what share of itself the step changes a typical matrix.

    The share leaves out the optimizer's momentum; LARS makes it learning rate x trust coefficient for all alike.
    """
    updated: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    norms = torch.stack(torch._foreach_norm([p.grad for p in updated if p.grad is not None])).float()
    numbers = {"grad_norm": torch.linalg.vector_norm(norms)}
    if ratios := getattr(optimizer, "ratios", None):  # LARS keeps the trust ratios of its last step
        ratios = torch.cat(ratios).float()
        numbers |= {"trust_min": ratios.min(), "trust_median": ratios.median()}
        change = norms.new_tensor(optimizer.defaults["trust_coefficient"])
    else:
        sizes = torch.stack(torch._foreach_norm(updated)).float()
        matrices = [i for i, p in enumerate(updated) if p.ndim > 1]
        if isinstance(optimizer, torch.optim.AdamW):
            # Each weight moves by up to the rate; its average of gradients does not sum them up as momentum does.
            counts = norms.new_tensor([p.numel() for p in updated])
            norms = counts.sqrt() * (1 - optimizer.defaults["betas"][0])
        change = (norms / sizes)[matrices].nanmedian()
    return numbers | {"update_size": optimizer.param_groups[0]["lr"] * change}
