"""Augmentation: the parameters drawn, their order per sample, and the distribution of the official pipeline."""

import collections
import random

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as TF

from benchmarks.pipeline.official_views import OfficialViews
from pixpro.data import augment as module
from pixpro.data import colour
from pixpro.data.augment import MEAN, ORDERS, STD, augment, chain, draw_colour
from tests.helpers import pictures


def pixels_of(count: int, side: int = 32) -> torch.Tensor:
    """(count, 3, side, side) uint8, channels last, as the loader gives them."""
    stacked = np.stack([np.asarray(pictures.texture(side, side, seed)) for seed in range(count)])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


def colours_of(count: int, role: int, seed: int = 0) -> torch.Tensor:
    rng = random.Random(seed)
    return torch.tensor([draw_colour(rng, role) for _ in range(count)])


def one_by_one(image: torch.Tensor, row: list[float]) -> torch.Tensor:
    """The recipe on one image with torchvision's functions, in the order that the row asks for."""
    order, *factors, grey, sigma, solarize = row
    x = image.float() / 255
    adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    for place in ORDERS[int(order)] if order >= 0 else ():
        x = adjust[place](x, factors[place])
    if grey:
        x = TF.rgb_to_grayscale(x, 3)
    if sigma:
        x = colour.blur(x[None], torch.tensor([sigma]))[0]  # held against Pillow in test_colour.py
    if solarize:
        x = TF.solarize(x, 0.5)
    return TF.normalize(x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_each_sample_gets_its_own_operations_in_its_own_order():
    rng = random.Random(5)
    rows = [
        (float(order), rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4), rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1))
        + (float(rng.random() < 0.3), rng.choice([0.0, 0.7, 1.9]), float(rng.random() < 0.3))
        for order in range(-1, 24)
    ]
    pixels = pixels_of(len(rows))
    result = augment(pixels, torch.tensor(rows))
    expected = torch.stack([one_by_one(x, row) for x, row in zip(pixels, rows, strict=True)])
    torch.testing.assert_close(result, expected, atol=5e-5, rtol=0)
    assert result.is_contiguous(memory_format=torch.channels_last) and result.dtype == torch.float32


@pytest.mark.parametrize("role", [0, 1])
def test_a_whole_batch_at_once_equals_sample_by_sample(role):
    pixels, colours = pixels_of(24), colours_of(24, role)
    torch.testing.assert_close(chain(pixels, colours), augment(pixels, colours), atol=1e-5, rtol=0)


def test_the_traced_form_for_compilers_equals_the_eager_one():
    pixels, colours = pixels_of(24), colours_of(24, 1)
    traced = torch.compile(chain, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(traced(pixels, colours), chain(pixels, colours), atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_the_cpu():
    pixels, colours = pixels_of(24, 224), colours_of(24, 0)
    on_gpu = augment(pixels.cuda(), colours.cuda())
    assert on_gpu.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(on_gpu.cpu(), augment(pixels, colours), atol=1e-3, rtol=0)


def test_a_failing_compiler_costs_a_warning_not_the_run(monkeypatch):
    def broken(pixels, colours):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    run = module._on_cuda.__wrapped__()
    pixels, colours = pixels_of(2), colours_of(2, 0)
    with pytest.warns(UserWarning, match="uncompiled"):
        first = run(pixels, colours)
    assert torch.equal(first, chain(pixels, colours)) and torch.equal(run(pixels, colours), first)


def test_no_operation_at_all_only_normalises():
    pixels = pixels_of(2)
    rows = torch.tensor([[-1.0, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0]]).expand(2, -1)
    expected = TF.normalize(pixels.float() / 255, MEAN, STD)
    torch.testing.assert_close(augment(pixels, rows), expected, atol=1e-6, rtol=0)


def test_drawn_parameters_follow_the_recipe():
    count = 20_000
    for role, (blurred, solarized) in enumerate([(1.0, 0.0), (0.1, 0.2)]):
        drawn = colours_of(count, role).double()
        order, factors, sigma = drawn[:, 0], drawn[:, 1:5], drawn[:, 6]
        for share, expected in [
            ((order >= 0).double(), 0.8),
            (drawn[:, 5], 0.2),
            ((sigma > 0).double(), blurred),
            (drawn[:, 7], solarized),
        ]:
            assert abs(share.mean() - expected) <= 4.5 * (expected * (1 - expected) / count) ** 0.5
        counts = collections.Counter(order[order >= 0].tolist())
        assert len(counts) == 24
        expected = sum(counts.values()) / 24
        assert sum((n - expected) ** 2 / expected for n in counts.values()) < 60  # chi-squared, 23 degrees of freedom
        ranges = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
        for values, (low, high) in [*zip(factors.T, ranges, strict=True), (sigma[sigma > 0], (0.1, 2.0))]:
            position = (values - low) / (high - low)
            assert 0 <= position.min() < 0.01 and 0.99 < position.max() <= 1
            histogram = torch.histc(position, 10, 0, 1) / len(position)
            assert (histogram - 0.1).abs().max() < 4.5 * (0.09 / len(position)) ** 0.5


# --- the distribution of whole views, against the official pipeline on Pillow

COUNT, SIDE = 500, 40


def statistics(views: torch.Tensor) -> torch.Tensor:
    """(n, K) numbers per view: means, spreads, saturation, histogram of grey levels, spectrum in octaves."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    x = ((views * std + mean) * 255).round().double()  # Pillow's views are 8-bit
    grey = x.mean(1)
    levels = torch.stack([torch.histc(g, 8, -0.5, 255.5) for g in grey]) / SIDE**2
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs() ** 2 / SIDE**2
    frequency = torch.fft.fftfreq(SIDE).abs() * SIDE
    radius = torch.maximum(frequency[:, None], frequency)
    bands = [(power * ((radius > low) & (radius <= 2 * low))).mean((1, 2)) for low in (0.5, 1, 2, 4, 8, 16)]
    spectrum = torch.stack(bands, 1).add(1).log()
    spectrum[:, 1:] -= spectrum[:, :1]  # the shape apart from the contrast, which varies more
    return torch.cat(
        [x.mean((2, 3)), x.std((2, 3)), (x.amax(1) - x.amin(1)).mean((1, 2))[:, None], levels, spectrum], 1
    )


@pytest.fixture(scope="module")
def both_pipelines() -> dict:
    """The pictures' pixels, and statistics of views 1 and 2 of them from either pipeline, colours only."""
    random.seed(0)
    torch.manual_seed(0)
    images = [pictures.texture(SIDE, SIDE, seed) for seed in range(COUNT)]
    official = OfficialViews(SIDE)
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    return {
        "pixels": pixels,
        "official": [statistics(torch.stack([official.colours[role](image) for image in images])) for role in (0, 1)],
        "ours": [statistics(augment(pixels, colours_of(COUNT, role, seed=role))) for role in (0, 1)],
    }


def largest_deviation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest mean difference of a statistic over its standard error; the pictures are the same in both."""
    difference = a - b
    error = difference.std(0) / len(difference) ** 0.5
    return (difference.mean(0).abs() / error.clamp_min(1e-9)).max().item()


def test_views_are_distributed_as_the_official_ones(both_pipelines):
    for role in (0, 1):
        assert largest_deviation(both_pipelines["ours"][role], both_pipelines["official"][role]) < 4


def test_the_comparison_of_distributions_would_notice_a_swap_of_the_roles(both_pipelines):
    for role in (0, 1):
        assert largest_deviation(both_pipelines["ours"][role], both_pipelines["official"][1 - role]) > 10


@pytest.mark.parametrize("column, change", [(1, 1.15), (2, 1.2), (3, 1.25), (6, 1.5)])
def test_the_comparison_of_distributions_would_notice_a_wrong_parameter(both_pipelines, column, change):
    colours = colours_of(COUNT, 0)
    colours[:, column] *= change
    colours[:, 6].clamp_(max=2)
    assert largest_deviation(statistics(augment(both_pipelines["pixels"], colours)), both_pipelines["official"][0]) > 4
