"""Converted weights, with or without a pyramid, compute what the checkpoint computes; a change is noticed."""

import pytest
import torch

from downstream.conversion.convert import convert, described
from downstream.conversion.names import pyramid_name
from downstream.conversion.verify import checkpoint_features, probe_image, relative_difference, trunk_features, verify
from downstream.conversion.weights_file import RGB, read_weights, write_weights
from pixpro.errors import UserError
from pixpro.method.encoder import Encoder
from tests.helpers.trunks import encoder_of, neck_of, state_dict_of


@pytest.fixture(scope="module")
def small():
    """resnet18's state dict."""
    return state_dict_of("resnet18")


@pytest.fixture(scope="module")
def trunk50():
    """resnet50 converted, on the probe image: weights in float64 and the checkpoint's features."""
    conversion = convert(encoder_of("resnet50"), "resnet50")
    weights = {name: torch.from_numpy(array).double() for name, array in conversion.weights.items()}
    return weights, checkpoint_features(conversion, "resnet50", probe_image())


def test_a_resnet50_has_265_tensors_and_53_counters(trunk50):
    weights, _ = trunk50
    counters = [name for name in weights if name.endswith("num_batches_tracked")]
    assert (len(weights) - len(counters), len(counters)) == (265, 53)


def test_verification_notices_two_tensors_of_one_shape_swapped(tmp_path, small):
    conversion = convert(small, "resnet18")
    path = tmp_path / "out.pkl"
    write_weights(path, conversion.weights, described(conversion, "resnet18"))
    assert max(verify(path, conversion, "resnet18").values()) < 1e-10
    first, second = "res3.1.conv1.weight", "res3.1.conv2.weight"
    swapped = conversion.weights | {first: conversion.weights[second], second: conversion.weights[first]}
    write_weights(path, swapped, described(conversion, "resnet18"))
    with pytest.raises(UserError, match="res3 differs by|res4 differs by|res5 differs by"):
        verify(path, conversion, "resnet18")


@pytest.mark.parametrize("fact", ["pixel_format", "pixel_mean", "pixel_std"])
def test_verification_notices_wrong_facts_beside_right_weights(tmp_path, small, fact):
    conversion = convert(small, "resnet18")
    facts = described(conversion, "resnet18")
    facts[fact] = {"pixel_format": "BGR", "pixel_mean": facts["pixel_mean"][::-1], "pixel_std": [1.0, 1.0, 1.0]}[fact]
    write_weights(tmp_path / "out.pkl", conversion.weights, facts)
    with pytest.raises(UserError, match="differs by"):
        verify(tmp_path / "out.pkl", conversion, "resnet18")


def test_the_rebuilt_resnet50_equals_torchvisions(trunk50):
    weights, expected = trunk50
    rebuilt = trunk_features(weights, probe_image(), **RGB)
    assert {name: map.shape for name, map in rebuilt.items()} == {name: map.shape for name, map in expected.items()}
    assert max(relative_difference(expected[name], rebuilt[name]) for name in expected) < 1e-10


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixel_format": "BGR"},
        {"pixel_mean": RGB["pixel_mean"][::-1]},
        {"pixel_std": (1.0, 1.0, 1.0)},
        {"stride_in_1x1": True},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_each_wrong_setting_changes_what_a_resnet50_computes(trunk50, wrong):
    weights, expected = trunk50
    rebuilt = trunk_features(weights, probe_image(), **(RGB | wrong))
    assert relative_difference(expected["res5"], rebuilt["res5"]) > 0.01


def test_a_pyramid_is_converted_and_verified_with_its_trunk(tmp_path, small):
    conversion = convert(small | neck_of([64, 128, 256, 512]), "resnet18")
    assert "fpn_lateral2.norm.running_var" in conversion.weights and "fpn_output5.weight" in conversion.weights
    assert conversion.weights["fpn_lateral4.weight"].shape == (16, 256, 1, 1)
    path = tmp_path / "out.pkl"
    write_weights(path, conversion.weights, described(conversion, "resnet18"))
    differences = verify(path, conversion, "resnet18")
    assert differences.keys() == {"res2", "res3", "res4", "res5", "p2", "p3", "p4", "p5"}
    assert max(differences.values()) < 1e-10
    assert read_weights(path).expected["MODEL.FPN.OUT_CHANNELS"] == 16


def test_pyramid_blocks_that_pre_training_left_alone_are_left_out(tmp_path):
    encoder = Encoder("resnet18", 8, 8, neck="fpn", levels=(3, 4))
    encoder(torch.randn(2, 3, 64, 64))
    state_dict = {f"encoder.{key}": tensor for key, tensor in encoder.state_dict().items()}
    conversion = convert(state_dict, "resnet18")
    modules = {name.split(".")[0] for name in conversion.weights if name.startswith("fpn")}
    assert modules == {"fpn_lateral3", "fpn_lateral4", "fpn_lateral5", "fpn_output3", "fpn_output4"}
    assert conversion.left_out["encoder.neck"] == 3 * 6
    path = tmp_path / "out.pkl"
    write_weights(path, conversion.weights, described(conversion, "resnet18"))
    differences = verify(path, conversion, "resnet18")
    assert differences.keys() == {"res2", "res3", "res4", "res5", "p3", "p4"} and max(differences.values()) < 1e-10


@pytest.mark.parametrize("key", ["inner_blocks.3.0.weight", "layer_blocks.0.1.running_mean"])
def test_an_incomplete_pyramid_is_refused(small, key):
    neck = neck_of([64, 128, 256, 512])
    del neck[f"encoder.neck.{key}"]
    with pytest.raises(UserError, match="not a whole feature pyramid"):
        convert(small | neck, "resnet18")


def test_pyramid_names_are_detectron2s():
    assert pyramid_name("inner_blocks.0.0.weight") == "fpn_lateral2.weight"
    assert pyramid_name("layer_blocks.3.1.bias") == "fpn_output5.norm.bias"
    with pytest.raises(UserError, match="neck cannot be converted"):
        pyramid_name("extra_blocks.p6.weight")
