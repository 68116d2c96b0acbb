"""PixPro and PixContrast: two views with their boxes -> loss."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixpro.data.views import View
from pixpro.method.encoder import Embedding, Encoder, momentum_copy
from pixpro.method.geometry import inside, positive_pairs
from pixpro.method.losses import consistency_loss, contrast_loss, instance_branch
from pixpro.method.numerics import at_least_float32, by_images, full_precision
from pixpro.method.ppm import PixelPropagation

Maps = tuple[Tensor, ...]  # of one view: (B, C, H, W) on each level
T = TypeVar("T")
Both = tuple[T, T]  # of view 1 and of view 2


class Passed(NamedTuple):
    """What went through a model in one forward pass, for those who want to look at it; each as (view 1, view 2)."""

    views: Both[View]
    online: Both[Maps]  # projections
    predictions: Both[Maps]  # what the online branch made of them
    targets: Both[Maps]  # projections of the momentum encoder


class DensePretraining(nn.Module):
    """An encoder, its momentum copy, and a loss between their cells; subclasses say which.

    `forward(view1, view2)` takes batched views with normalised pixels and returns the scalar loss of both
    directions. The caller updates the momentum copy, after the optimizer's step: `update_momentum(m)`.
    `watcher` is handed the maps of each forward pass. With `together` both views pass the encoders as one batch, for
    networks whose BatchNorm keeps the statistics of the views apart. instance: the loss of the instance branch, for an
    encoder with a projector for it.
    """

    watcher: Callable[[Passed], None] | None = None
    together = False

    def __init__(
        self, encoder: Encoder, instance: nn.Module | None, *, threshold: float, instance_weight: float
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.instance_weight = instance_weight
        self.encoder = encoder
        self.momentum_encoder = momentum_copy(encoder)
        self.instance = instance

    def forward(self, view1: View, view2: View) -> Tensor:
        online1, online2 = self.embed(self.encoder, view1.pixels, view2.pixels)
        with torch.no_grad():
            target1, target2 = self.embed(self.momentum_encoder, view1.pixels, view2.pixels)
        online, targets = (online1.maps, online2.maps), (target1.maps, target2.maps)
        levels = [(self.predict(cells1), self.predict(cells2)) for cells1, cells2 in zip(*online, strict=True)]
        predictions1, predictions2 = zip(*levels, strict=True)
        predictions = predictions1, predictions2
        loss = self.dense_loss(predictions, targets, (view1.box, view2.box))
        if self.instance is not None:
            both = self.instance(online1.instance, target2.instance)
            both = both + self.instance(online2.instance, target1.instance)
            loss = loss + self.instance_weight * both
        if self.watcher is not None:
            self.watcher(Passed((view1, view2), online, predictions, targets))
        return loss

    def embed(self, encoder: Encoder, pixels1: Tensor, pixels2: Tensor) -> Both[Embedding]:
        """What an encoder makes of both views, with statistics of each: in two passes, or in one if `together`."""
        if not self.together:  # in the official order
            return encoder(pixels1), encoder(pixels2)
        both = encoder(torch.cat((pixels1, pixels2)))
        maps1, maps2 = zip(*(each.chunk(2) for each in both.maps), strict=True)
        instance1, instance2 = (None, None) if both.instance is None else both.instance.chunk(2)
        return Embedding(maps1, instance1), Embedding(maps2, instance2)

    def dense_loss(self, predictions: Both[Maps], targets: Both[Maps], boxes: Both[Tensor]) -> Tensor:
        """Loss of both directions, averaged over the levels of the feature maps; each argument as (view 1, view 2)."""
        levels = zip(*predictions, *targets, strict=True)
        losses = [self.level_loss((p1, p2), (t1, t2), boxes) for p1, p2, t1, t2 in levels]
        return torch.stack(losses).mean()

    def level_loss(self, predictions: Both[Tensor], targets: Both[Tensor], boxes: Both[Tensor]) -> Tensor:
        """Loss of both directions on one level, in full precision."""
        images, size = len(boxes[0]), (predictions[0].shape[2], predictions[0].shape[3])

        def part(
            prediction1: Tensor, prediction2: Tensor, target1: Tensor, target2: Tensor, boxes1: Tensor, boxes2: Tensor
        ) -> Tensor:
            """What a run of images adds to the mean over all."""
            positives = positive_pairs(boxes1, boxes2, size, self.threshold)
            loss = self.cell_loss(prediction1, target2, positives, (boxes1, boxes2))
            loss = loss + self.cell_loss(prediction2, target1, positives.transpose(1, 2), (boxes2, boxes1))
            return loss * (len(prediction1) / images)

        with full_precision(boxes[0].device):
            cells = [F.normalize(at_least_float32(maps), dim=1) for maps in (*predictions, *targets)]
            return torch.stack(by_images(part, *cells, *boxes, cells=size[0] * size[1])).sum()

    def predict(self, cells: Tensor) -> Tensor:
        """What the online branch makes of its projection: nothing else, if the method does not say."""
        return cells

    def cell_loss(self, prediction: Tensor, target: Tensor, positives: Tensor, boxes: Both[Tensor]) -> Tensor:
        """The method's loss between normalised cells; boxes: of the prediction's view, of the target's."""
        raise NotImplementedError

    @torch.no_grad()
    def update_momentum(self, coefficient: float) -> None:
        """Move the momentum encoder: coefficient x itself + (1 - coefficient) x encoder; parameters only."""
        momentum, online = self.momentum_encoder.parameters(), self.encoder.parameters()
        torch._foreach_lerp_(list(momentum), list(online), 1 - coefficient)


class PixPro(DensePretraining):
    """Pixel-to-propagation consistency: propagated cells of one view match the momentum cells of the other.

    `forward(view1, view2)`: two `View`s, pixels (B, 3, S, S) normalised and boxes (B, 4) -> the scalar loss, float32;
    in [-4, 4] without the instance branch, -4 where all matched cells agree. Images whose views share no place add 0.
    arXiv:2011.10043, section 3.2; defaults are the official code's.

    arch: a torchvision ResNet, or `timm/NAME`. hidden_dim, dim: of the projector. num_layers, sharpness (the
    paper's gamma), similarity_floor: of the propagation (ppm.py). threshold: distance of matched cells, in cell
    diagonals (geometry.py). neck, levels, drop_path: see `Encoder`. instance_*: a second loss on whole images, with
    this weight; 0: none. ValueError: settings that do not fit together, or an unknown arch.
    """

    def __init__(
        self,
        arch: str = "resnet50",
        *,
        hidden_dim: int = 4096,
        dim: int = 256,
        num_layers: int = 1,
        sharpness: float = 2.0,
        similarity_floor: float = 0.0,
        threshold: float = 0.7,
        neck: str = "none",
        levels: Iterable[int] = (3, 4, 5),
        instance_weight: float = 0.0,
        instance_loss: str = "regression",
        instance_temperature: float = 0.2,
        drop_path: float = 0.0,
    ) -> None:
        encoder = Encoder(arch, hidden_dim, dim, instance_weight > 0, neck, levels, drop_path)
        branch = instance_branch(instance_loss, dim, hidden_dim, instance_temperature) if instance_weight > 0 else None
        super().__init__(encoder, branch, threshold=threshold, instance_weight=instance_weight)
        self.propagation = PixelPropagation(dim, sharpness, num_layers, similarity_floor)

    def predict(self, cells: Tensor) -> Tensor:
        return self.propagation(cells)

    def cell_loss(self, prediction: Tensor, target: Tensor, positives: Tensor, boxes: Both[Tensor]) -> Tensor:
        return consistency_loss(prediction, target, positives)


class PixContrast(DensePretraining):
    """Pixel-level contrast: a cell of one view tells its positives from the other cells of the same image.

    `forward(view1, view2)`: two `View`s, pixels (B, 3, S, S) normalised and boxes (B, 4) -> the scalar loss, float32:
    the sum of both directions' mean InfoNCE, from 0 up. Without propagation, as in the paper (arXiv:2011.10043,
    section 3.1, equation 2). temperature: tau there. The other arguments and the errors are those of `PixPro`.
    """

    def __init__(
        self,
        arch: str = "resnet50",
        *,
        hidden_dim: int = 4096,
        dim: int = 256,
        temperature: float = 0.3,
        threshold: float = 0.7,
        neck: str = "none",
        levels: Iterable[int] = (3, 4, 5),
        instance_weight: float = 0.0,
        instance_loss: str = "regression",
        instance_temperature: float = 0.2,
        drop_path: float = 0.0,
    ) -> None:
        encoder = Encoder(arch, hidden_dim, dim, instance_weight > 0, neck, levels, drop_path)
        branch = instance_branch(instance_loss, dim, hidden_dim, instance_temperature) if instance_weight > 0 else None
        super().__init__(encoder, branch, threshold=threshold, instance_weight=instance_weight)
        self.temperature = temperature

    def cell_loss(self, prediction: Tensor, target: Tensor, positives: Tensor, boxes: Both[Tensor]) -> Tensor:
        within = inside(*boxes, (prediction.shape[2], prediction.shape[3]))
        return contrast_loss(prediction, target, positives, within, self.temperature)
