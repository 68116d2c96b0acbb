"""Trunks to be measured: untrained ones from a seed, without a head, on central views of any image."""

import numpy as np
import pytest
import torch
import torchvision
from torch.optim.swa_utils import update_bn

from downstream.probes.frozen_trunk import central_view, trunk_only, untrained_trunk


def test_untrained_trunks_follow_the_seed_and_are_calibrated():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    trunk, again, other = untrained_trunk("resnet18", 0), untrained_trunk("resnet18", 0), untrained_trunk("resnet18", 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(trunk.conv1.weight, again.conv1.weight)
    assert not torch.equal(trunk.conv1.weight, other.conv1.weight)
    batch = torch.randn(8, 3, 64, 64) * 3 + 1
    update_bn([batch], trunk)
    assert not trunk.training
    normalised = trunk.bn1(trunk.conv1(batch))
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.var((0, 2, 3)), torch.ones(64), atol=1e-2, rtol=0)


def test_a_trunk_is_the_model_without_its_head():
    model = untrained_trunk("resnet18", 0)
    whole = torch.nn.Sequential(*model.children())
    images = torch.randn(2, 3, 64, 96)
    assert torch.equal(model(images), whole(images)) and model(images).shape == (2, 512, 2, 3)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("shape", [(50, 400), (400, 50), (300, 200), (5, 9)])
def test_central_views_are_central_squares_of_any_image(shape):
    height, width = shape
    x = np.linspace(-1, 1, width)[None, :, None] * np.ones((height, 1, 3))
    pixels = torch.tensor((x * 100 + 128).astype(np.uint8)).permute(2, 0, 1)
    view = central_view(pixels, 64)
    assert view.shape == (3, 64, 64)
    middle = (view.mean(dim=(1, 2)) * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])) * 255
    assert (middle - 127.5).abs().max() < 3


@pytest.mark.parametrize("level, channels", [(2, 64), (3, 128), (4, 256), (5, 512)])
def test_a_trunk_s_map_of_one_level_is_that_of_the_model_s_stages(level, channels):
    model = torchvision.models.get_model("resnet18", weights=None).eval()
    images = torch.randn(1, 3, 64, 64)
    expected = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    for stage in range(1, level):
        expected = getattr(model, f"layer{stage}")(expected)
    found = trunk_only(model, level)(images)
    assert found.shape == (1, channels, 64 >> level, 64 >> level)
    torch.testing.assert_close(found, expected)
