"""Feature pyramid: its maps and its parameters equal their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import FeaturePyramidNetwork

from pixpro.method.encoder import Encoder
from pixpro.method.heads import FeaturePyramid

SMALL = {"hidden_dim": 16, "dim": 8}
CHANNELS = [4, 6, 8, 10]
SUBSETS = [(2, 3, 4, 5), (3, 4, 5), (4, 5), (5,), (2,), (3, 5)]


def trunk_maps(side: int = 32) -> dict[str, torch.Tensor]:
    return {
        f"c{level}": torch.randn(2, channels, side >> i, side >> i, dtype=torch.float64)
        for i, (level, channels) in enumerate(zip((2, 3, 4, 5), CHANNELS, strict=True))
    }


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


def test_parameters_have_torchvision_s_names_below_neck():
    names = {name for name in Encoder("resnet18", **SMALL, neck="fpn").state_dict() if name.startswith("neck.")}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    blocks = [f"neck.{kind}_blocks.{i}" for kind in ("inner", "layer") for i in range(4)]
    assert names == {f"{b}.0.weight" for b in blocks} | {f"{b}.1.{part}" for b in blocks for part in norm}


def test_without_a_neck_there_is_one_map_and_no_parameter_of_it():
    encoder = Encoder("resnet18", **SMALL)
    assert not any(name.startswith("neck") for name in encoder.state_dict())
    assert [tuple(level_map.shape) for level_map in encoder(torch.randn(2, 3, 64, 64)).maps] == [(2, 8, 2, 2)]
