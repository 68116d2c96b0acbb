"""Colour operations: each equals torchvision's on single images, the blur equals Pillow's."""

import numpy as np
import pytest
import torch
from PIL import ImageFilter
from torchvision.transforms import functional as TF

from pixpro.data import colour
from tests.helpers import pictures


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """(4, 3, 40, 50) in [0, 1]: photograph-like, noise, grey, and the extremes."""
    rows = [np.asarray(pictures.texture(40, 50, seed)) / 255 for seed in range(2)]
    rng = np.random.default_rng(0)
    rows += [np.repeat(rng.random((40, 50, 1)), 3, axis=2), rng.integers(0, 2, (40, 50, 3)).astype(float)]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize(
    "ours, theirs, factors",
    [
        (colour.brightness, TF.adjust_brightness, [0.6, 1.0, 1.4, 0.0]),
        (colour.contrast, TF.adjust_contrast, [0.6, 1.0, 1.4, 0.0]),
        (colour.saturation, TF.adjust_saturation, [0.8, 1.0, 1.2, 0.0]),
        (colour.hue, TF.adjust_hue, [-0.1, 0.0, 0.1, 0.03]),
        (colour.hue, TF.adjust_hue, [-0.5, 0.5, 0.3, -0.3]),
    ],
)
def test_each_sample_is_adjusted_by_its_own_factor(images, ours, theirs, factors):
    for shift in range(4):  # every image meets every factor
        turned = factors[shift:] + factors[:shift]
        result = ours(images, torch.tensor(turned))
        expected = torch.stack([theirs(x, factor) for x, factor in zip(images, turned, strict=True)])
        torch.testing.assert_close(result, expected, atol=3e-6, rtol=0)


def test_grey(images):
    torch.testing.assert_close(colour.grey(images), TF.rgb_to_grayscale(images, 3), atol=1e-6, rtol=0)


def test_solarize_inverts_8_bit_levels_from_128_on():
    levels = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    expected = TF.solarize(levels[0].to(torch.uint8), 128).float()
    torch.testing.assert_close(colour.solarize(levels / 255)[0] * 255, expected, atol=1e-4, rtol=0)


def test_operations_leave_their_input_alone(images):
    before = images.clone()
    for operation in (colour.brightness, colour.contrast, colour.saturation, colour.hue, colour.blur):
        operation(images, torch.full((4,), 0.1))
    for operation in (colour.grey, colour.solarize):
        operation(images)
    assert torch.equal(images, before)


def box(signal: np.ndarray, radius: float) -> np.ndarray:
    """Means of a replicated, piecewise constant signal over [i - radius - 1/2, i + radius + 1/2], by its integral."""
    pad = 4
    integral = np.concatenate([[0.0], np.cumsum(np.pad(signal, pad, mode="edge"))])
    ends = np.arange(len(integral)) - 0.5 - pad
    at = np.arange(len(signal))
    upper, lower = (np.interp(at + sign * (radius + 0.5), ends, integral) for sign in (1, -1))
    return (upper - lower) / (2 * radius + 1)


def radius_of(sigma: float) -> float:
    """Radius of the box with fractional edges whose three passes have the variance sigma ** 2, by bisection."""
    low, high = 0.0, 4.0
    for _ in range(60):
        radius = (low + high) / 2
        distances = np.arange(-5, 6)
        weights = np.clip(radius + 0.5 - np.abs(distances) + 0.5, 0, 1) / (2 * radius + 1)
        low, high = (radius, high) if 3 * (weights * distances**2).sum() < sigma**2 else (low, radius)
    return low


SIGMAS = [0.1, 0.55, 0.9, 1.2, 1.3, 1.7, 1.99]  # not 0.5 or 2: weights like 1/8 make ties, rounded either way


def three_boxes(image: np.ndarray, sigma: float, rounded: bool) -> np.ndarray:
    """The blur of (..., H, W) by the definition; rounded: to 8 bits after every pass."""
    for axis in (-1, -2):
        for _ in range(3):
            image = np.apply_along_axis(box, axis, image, radius_of(sigma))
            image = np.floor(image + 0.5) if rounded else image
    return image


@pytest.mark.parametrize("sigma", SIGMAS)
def test_blur_is_three_boxes_of_the_right_variance_each_way(images, sigma):
    result = colour.blur(images, torch.full((4,), sigma))
    assert np.abs(result.numpy() - three_boxes(images.double().numpy(), sigma, rounded=False)).max() < 2e-5


@pytest.mark.parametrize("sigma", SIGMAS)
def test_three_boxes_rounded_after_every_pass_are_pillow_s_blur(sigma):
    picture = pictures.texture(40, 50)
    pillow = np.asarray(picture.filter(ImageFilter.GaussianBlur(sigma))).astype(float).transpose(2, 0, 1)
    ours = three_boxes(np.asarray(picture).astype(float).transpose(2, 0, 1), sigma, rounded=True)
    assert (ours != pillow).mean() < 0.001


def test_blur_of_a_batch_uses_each_sample_s_sigma(images):
    sigma = torch.tensor([0.1, 0.8, 1.3, 2.0])
    batch = colour.blur(images, sigma)
    for i in range(4):
        torch.testing.assert_close(
            batch[i : i + 1], colour.blur(images[i : i + 1], sigma[i : i + 1]), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (2, 3)])
def test_blur_of_tiny_images(height, width):
    x = torch.rand(1, 3, height, width)
    blurred = colour.blur(x, torch.tensor([2.0]))
    assert blurred.shape == x.shape and x.min() - 1e-6 <= blurred.min() <= blurred.max() <= x.max() + 1e-6


def test_blur_leaves_a_constant_image_as_it_is():
    x = torch.full((1, 3, 8, 8), 0.7)
    torch.testing.assert_close(colour.blur(x, torch.tensor([1.6])), x)
