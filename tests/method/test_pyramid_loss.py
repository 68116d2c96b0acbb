"""Training on a pyramid's levels: pairs and loss equal their definitions, in runs of images of any length."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from pixpro.data.views import View
from pixpro.method import numerics
from pixpro.method.encoder import Encoder
from pixpro.method.geometry import inside
from pixpro.method.model import PixContrast, PixPro
from pixpro.monitor.matching import encoder_matching

SMALL = {"hidden_dim": 16, "dim": 8}


def overlapping_views(images: int, side: int) -> tuple[View, View]:
    """Two float64 views of each image, the second one of the first image flipped, whose boxes overlap."""
    views = []
    for _ in range(2):
        corners = torch.rand(images, 2, dtype=torch.float64) * 0.3
        views.append(
            View(torch.randn(images, 3, side, side, dtype=torch.float64), torch.cat((corners, corners + 0.6), 1))
        )
    views[1].box[0] = views[1].box[0, [2, 1, 0, 3]]
    return views[0], views[1]


def model_with_neck(method: type, levels: tuple[int, ...], **options) -> torch.nn.Module:
    """A float64 model whose momentum copy differs from its encoder."""
    model = method("resnet18", neck="fpn", levels=levels, **SMALL, **options).double()
    with torch.no_grad():
        for parameter in model.momentum_encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def test_matching_is_measured_on_the_coarsest_level():
    view1, view2 = (View(view.pixels.float(), view.box.float()) for view in overlapping_views(4, side=64))
    for levels, cells in (((4, 5), 2), ((3, 4), 4)):
        encoder = Encoder("resnet18", **SMALL, neck="fpn", levels=levels)
        scores = encoder_matching(encoder, (view1, view2))
        assert scores["projector"].cells == inside(view1.box, view2.box, cells).sum().item()


def test_the_momentum_copy_includes_the_neck():
    model = model_with_neck(PixPro, (4, 5))
    online, momentum = model.encoder.neck.state_dict(), model.momentum_encoder.neck.state_dict()
    assert not torch.equal(online["inner_blocks.3.0.weight"], momentum["inner_blocks.3.0.weight"])
    assert not any(parameter.requires_grad for parameter in model.momentum_encoder.neck.parameters())
    model.update_momentum(0.0)
    for name, parameter in model.encoder.neck.named_parameters():
        torch.testing.assert_close(model.momentum_encoder.neck.get_parameter(name), parameter, rtol=0, atol=1e-15)


def slow_pairs(box1: list[float], box2: list[float], side: int) -> list[list[bool]]:
    """From the definition: centres nearer than 0.7 of the larger bin diagonal, cells row by row."""

    def bins(box):
        return (box[2] - box[0]) / side, (box[3] - box[1]) / side

    def centers(box):
        width, height = bins(box)
        return [(box[0] + (x + 0.5) * width, box[1] + (y + 0.5) * height) for y in range(side) for x in range(side)]

    diagonal = max(math.hypot(*bins(box1)), math.hypot(*bins(box2)))
    return [[math.dist(a, b) / diagonal < 0.7 for b in centers(box2)] for a in centers(box1)]


def test_pairs_at_every_level_equal_the_definition(monkeypatch):
    """What the loss is given, level after level, in runs of images, both directions of a run in turn."""
    seen = []

    def record(self, prediction, target, positives, inside):
        seen.append(positives)
        return prediction.sum() * 0

    monkeypatch.setattr(PixPro, "cell_loss", record)
    monkeypatch.setattr(numerics, "PAIRS_AT_ONCE", 2 * 8**4)
    model = model_with_neck(PixPro, (3, 4, 5))
    view1, view2 = overlapping_views(3, side=64)
    with torch.no_grad():
        model(view1, view2)
    assert [len(positives) for positives in seen] == [2, 2, 1, 1, 3, 3, 3, 3]
    for runs, boxes, others in ((seen[::2], view1.box, view2.box), (seen[1::2], view2.box, view1.box)):
        for positives, side in ((torch.cat(runs[:2]), 8), (runs[2], 4), (runs[3], 2)):
            expected = [slow_pairs(*pair, side) for pair in zip(boxes.tolist(), others.tolist(), strict=True)]
            assert positives.tolist() == expected
            assert 0 < positives.sum() < positives.numel()


def slow_propagation(model: PixPro, cells: torch.Tensor) -> torch.Tensor:
    """y_i = sum_j max(cos(x_i, x_j), 0)^2 unit(g(x_j)) for one image's (C, N) cells, cell by cell."""
    values = model.propagation.transform(cells[None, :, :, None])[0, :, :, 0]
    mixed = []
    for i in range(cells.shape[1]):
        weights = [
            max(F.cosine_similarity(cells[:, i], cells[:, j], dim=0).item(), 0) ** 2 for j in range(cells.shape[1])
        ]
        mixed.append(sum(w * values[:, j] / values[:, j].norm() for j, w in enumerate(weights)))
    return torch.stack(mixed, dim=1)


def slow_image_loss(model, online: torch.Tensor, target: torch.Tensor, positives: list[list[bool]]) -> float:
    """Official PixPro loss of one direction, level and image: -2 x mean cosine over positive pairs."""
    propagated = slow_propagation(model, online)
    cosines = [
        F.cosine_similarity(propagated[:, i], target[:, j], dim=0).item()
        for i, row in enumerate(positives)
        for j, positive in enumerate(row)
        if positive
    ]
    return -2 * sum(cosines) / len(cosines) if cosines else 0.0


@torch.no_grad()
def test_the_loss_is_the_mean_over_levels_of_the_mean_over_images():
    model = model_with_neck(PixPro, (4, 5))
    views = overlapping_views(3, side=96)
    online = [model.encoder(view.pixels).maps for view in views]
    target = [model.momentum_encoder(view.pixels).maps for view in views]
    expected = 0.0
    for level, side in enumerate((6, 3)):
        for i in (0, 1):
            for image in range(3):
                pairs = slow_pairs(views[i].box[image].tolist(), views[1 - i].box[image].tolist(), side)
                cells = [maps[level][image].flatten(1) for maps in (online[i], target[1 - i])]
                expected += slow_image_loss(model, *cells, pairs) / 3 / 2
    assert model(*views).item() == pytest.approx(expected, abs=1e-6)


def random_maps(images: int, sides: tuple[int, ...]) -> tuple[tuple, tuple]:
    """Projected maps of two views as the two encoders give them: online ones with gradient, momentum ones without."""
    online, targets = (
        tuple(tuple(torch.randn(images, 8, side, side, dtype=torch.float64) for side in sides) for _ in range(2))
        for _ in range(2)
    )
    return tuple(tuple(level_map.requires_grad_() for level_map in maps) for maps in online), targets


def loss_of(model: PixPro | PixContrast, online: tuple, targets: tuple, boxes: list) -> torch.Tensor:
    """The dense loss of projected maps, with what the online branch makes of them."""
    predictions = tuple(tuple(model.predict(cells) for cells in maps) for maps in online)
    return model.dense_loss(predictions, targets, boxes)


@pytest.mark.parametrize("method", [PixPro, PixContrast])
@pytest.mark.parametrize("pairs_at_once", [1, 2 * 8**4])
def test_runs_of_images_change_neither_loss_nor_gradients(method, pairs_at_once, monkeypatch):
    """Not even with BatchNorm in the propagation module, whose statistics are those of the whole batch."""
    model = model_with_neck(method, (3, 5), **({"num_layers": 2} if method is PixPro else {}))
    online, targets = random_maps(5, (8, 2))
    boxes = [view.box for view in overlapping_views(5, side=1)]
    parameters = [*online[0], *online[1], *(model.propagation.parameters() if method is PixPro else ())]
    losses, gradients = [], []
    for limit in (numerics.PAIRS_AT_ONCE, pairs_at_once):
        monkeypatch.setattr(numerics, "PAIRS_AT_ONCE", limit)
        losses.append(loss_of(model, online, targets, boxes))
        gradients.append(torch.autograd.grad(losses[-1], parameters))
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-13)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-13)


def pair_matrices_kept(loss: Callable[[], torch.Tensor], cells: int) -> int:
    """How many (..., cells, cells) tensors the forward pass keeps for the backward pass."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.shape[-2:] == (cells, cells)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return kept


@pytest.mark.parametrize("method", [PixPro, PixContrast])
def test_fine_maps_keep_no_matrix_of_pairs_for_the_backward_pass(method, monkeypatch):
    model = model_with_neck(method, (2,))
    maps = random_maps(2, (12,))
    boxes = [view.box for view in overlapping_views(2, side=1)]
    assert pair_matrices_kept(lambda: loss_of(model, *maps, boxes), 144) > 0
    monkeypatch.setattr(numerics, "PAIRS_AT_ONCE", 144**2)
    assert pair_matrices_kept(lambda: loss_of(model, *maps, boxes), 144) == 0
