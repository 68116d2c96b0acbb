"""Feature pyramid: its maps, its parameters, and the loss on its levels equal their definitions."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import FeaturePyramidNetwork

from pixpro import chunks
from pixpro.encoder import Encoder
from pixpro.geometry import inside
from pixpro.matching import encoder_matching
from pixpro.model import PixContrast, PixPro
from pixpro.neck import FeaturePyramid
from pixpro.views import View

SMALL = {"hidden_dim": 16, "dim": 8}
CHANNELS = [4, 6, 8, 10]
SUBSETS = [(2, 3, 4, 5), (3, 4, 5), (4, 5), (5,), (2,), (3, 5)]


def trunk_maps(side: int = 32) -> dict[str, torch.Tensor]:
    return {
        f"c{level}": torch.randn(2, channels, side >> i, side >> i, dtype=torch.float64)
        for i, (level, channels) in enumerate(zip((2, 3, 4, 5), CHANNELS, strict=True))
    }


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


@pytest.mark.parametrize("levels", SUBSETS)
def test_maps_equal_those_of_torchvision_s_network_finest_first(levels):
    neck = FeaturePyramid(CHANNELS, levels).double()
    reference = FeaturePyramidNetwork(CHANNELS, 256, norm_layer=torch.nn.BatchNorm2d).double()
    reference.load_state_dict(neck.state_dict())
    features = trunk_maps()
    expected = reference(features)
    found = neck(features)
    assert len(found) == len(levels)
    for level, level_map in zip(levels, found, strict=True):
        torch.testing.assert_close(level_map, expected[f"c{level}"], rtol=0, atol=1e-12)


def test_each_level_adds_the_doubled_coarser_one_as_detectron2_does():
    neck = FeaturePyramid(CHANNELS, (4, 5)).double().eval()
    features = trunk_maps()
    weights = neck.state_dict()

    def convolve(block: str, image: torch.Tensor, padding: int) -> torch.Tensor:
        raw = F.conv2d(image, weights[f"{block}.0.weight"], padding=padding)
        return raw / math.sqrt(1 + 1e-5)  # a fresh BatchNorm in eval mode

    top = convolve("inner_blocks.3", features["c5"], 0)
    doubled = top.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    p4 = convolve("layer_blocks.2", convolve("inner_blocks.2", features["c4"], 0) + doubled, 1)
    torch.testing.assert_close(neck(features)[0], p4, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", SUBSETS)
def test_blocks_are_trained_exactly_where_the_loss_needs_them(levels):
    """A parameter without gradient would stop distributed training; an unused block must not look trained."""
    neck = FeaturePyramid(CHANNELS, levels).double()
    sum(level_map.square().sum() for level_map in neck(trunk_maps())).backward()
    for name, parameter in neck.named_parameters():
        kind, block = name.split(".")[0], int(name.split(".")[1]) + 2
        needed = block >= min(levels) if kind == "inner_blocks" else block in levels
        assert (parameter.grad is not None) == parameter.requires_grad == needed, name
        batches = neck.get_buffer(f"{kind}.{block - 2}.1.num_batches_tracked")
        assert batches == (1 if needed else 0)


def test_levels_may_be_given_in_any_order_and_more_than_once():
    assert FeaturePyramid(CHANNELS, [5, 3, 5]).levels == (3, 5)


@pytest.mark.parametrize("levels", [(), (1, 2), (6,)])
def test_levels_outside_the_pyramid_are_refused(levels):
    with pytest.raises(ValueError, match="pyramid levels"):
        FeaturePyramid(CHANNELS, levels)


def test_an_unknown_neck_is_refused():
    with pytest.raises(ValueError, match="'pan'.*none, fpn"):
        Encoder("resnet18", neck="pan")


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_encoder_s_maps_have_the_strides_of_their_levels(arch):
    encoder = Encoder(arch, **SMALL, neck="fpn", levels=(2, 3, 4, 5))
    maps = encoder(torch.randn(2, 3, 64, 64)).maps
    assert [tuple(level_map.shape) for level_map in maps] == [(2, 8, side, side) for side in (16, 8, 4, 2)]


def test_matching_is_measured_on_the_coarsest_level():
    view1, view2 = (View(view.pixels.float(), view.box.float()) for view in overlapping_views(4, side=64))
    for levels, cells in (((4, 5), 2), ((3, 4), 4)):
        encoder = Encoder("resnet18", **SMALL, neck="fpn", levels=levels)
        scores = encoder_matching(encoder, (view1, view2))
        assert scores["projector"].cells == inside(view1.box, view2.box, cells).sum().item()


def test_parameters_have_torchvision_s_names_below_neck():
    names = {name for name in Encoder("resnet18", **SMALL, neck="fpn").state_dict() if name.startswith("neck.")}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    blocks = [f"neck.{kind}_blocks.{i}" for kind in ("inner", "layer") for i in range(4)]
    assert names == {f"{b}.0.weight" for b in blocks} | {f"{b}.1.{part}" for b in blocks for part in norm}


def test_without_a_neck_there_is_one_map_and_no_parameter_of_it():
    encoder = Encoder("resnet18", **SMALL)
    assert not any(name.startswith("neck") for name in encoder.state_dict())
    assert [tuple(level_map.shape) for level_map in encoder(torch.randn(2, 3, 64, 64)).maps] == [(2, 8, 2, 2)]


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
    monkeypatch.setattr(chunks, "PAIRS_AT_ONCE", 2 * 8**4)
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


@pytest.mark.parametrize("method", [PixPro, PixContrast])
@pytest.mark.parametrize("pairs_at_once", [1, 2 * 8**4])
def test_runs_of_images_change_neither_loss_nor_gradients(method, pairs_at_once, monkeypatch):
    """Not even with BatchNorm in the propagation module, whose statistics are those of the whole batch."""
    model = model_with_neck(method, (3, 5), **({"num_layers": 2} if method is PixPro else {}))
    online, targets = random_maps(5, (8, 2))
    boxes = [view.box for view in overlapping_views(5, side=1)]
    parameters = [*online[0], *online[1], *(model.propagation.parameters() if method is PixPro else ())]
    losses, gradients = [], []
    for limit in (chunks.PAIRS_AT_ONCE, pairs_at_once):
        monkeypatch.setattr(chunks, "PAIRS_AT_ONCE", limit)
        losses.append(model.dense_loss(online, targets, boxes))
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
    assert pair_matrices_kept(lambda: model.dense_loss(*maps, boxes), 144) > 0
    monkeypatch.setattr(chunks, "PAIRS_AT_ONCE", 144**2)
    assert pair_matrices_kept(lambda: model.dense_loss(*maps, boxes), 144) == 0
