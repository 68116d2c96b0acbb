"""A batch of uint8 views -> colour jitter, grey, blur, solarize, normalise, with parameters per sample, on the device.

The workers draw the parameters (`draw_colour`), the device applies them (`augment`); the recipe is the official one
(zdaxie/PixPro, contrast/data/transform.py, BYOL), its roles of the two views fixed.
"""

import functools
import itertools
import random
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from pixpro.data.colour import blur, brightness, contrast, grey, hue, saturation, solarize

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SIGMA = (0.1, 2.0)
ORDERS = tuple(itertools.permutations(range(4)))  # of brightness, contrast, saturation, hue
JITTER = (brightness, contrast, saturation, hue)
BLUR_CHANCE = (1.0, 0.1)  # of view 1, of view 2
SOLARIZE_CHANCE = (0.0, 0.2)

Colour = tuple[float, ...]  # place in ORDERS (-1: no jitter), four factors, grey, sigma (0: no blur), solarize


def draw_colour(rng: random.Random, role: int) -> Colour:
    """The parameters of one view's colours: what `augment` takes as a row. role: 0 for view 1, 1 for view 2."""
    order = rng.randrange(len(ORDERS)) if rng.random() < 0.8 else -1
    factors = rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4), rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)
    to_grey = rng.random() < 0.2
    blurred, sigma = rng.random() < BLUR_CHANCE[role], rng.uniform(*SIGMA)
    solarized = rng.random() < SOLARIZE_CHANCE[role]
    return (float(order), *factors, float(to_grey), sigma if blurred else 0.0, float(solarized))


def augment(pixels: Tensor, colour: Tensor) -> Tensor:
    """Normalised views (B, 3, S, S) float32, channels last, on the device of the pixels.

    pixels: (B, 3, S, S) uint8. colour: (B, 8) float32, rows of `draw_colour`. Normalised: RGB in 0..1 minus ImageNet's
    mean, over its standard deviation.
    Each sample gets its own parameters and its own order of the jitter's operations. Compiled on CUDA; on the CPU
    sample by sample, so that a picture stays in the cache and operations that it does not need are not computed.
    """
    colour = colour.to(pixels.device)
    out = torch.empty(pixels.shape, device=pixels.device, memory_format=torch.channels_last)
    if pixels.is_cuda:
        return out.copy_(_on_cuda()(pixels, colour))
    for i in range(len(pixels)):
        out[i] = chain(pixels[i : i + 1], colour[i : i + 1])[0]
    return out


def chain(pixels: Tensor, colour: Tensor) -> Tensor:
    """`augment` in plain tensor operations on the whole batch."""
    x = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    factors = colour[:, 1:5]
    for turn in operations(colour[:, 0]):
        for place, operation in enumerate(JITTER):
            x = _where(turn == place, operation, x, factors[:, place])
    x = _where(colour[:, 5] > 0, grey, x)
    x = _where(colour[:, 6] > 0, blur, x, colour[:, 6])
    x = _where(colour[:, 7] > 0, solarize, x)
    return (x - by_channel(MEAN, x)) / by_channel(STD, x)


def operations(order: Tensor) -> tuple[Tensor, ...]:
    """Which operation of JITTER comes first, second, third and last: places in ORDERS (B,) -> (B,) each; -1: none.

    Computed and not looked up: the host would copy a table to the device, and wait for it, in every step.
    """
    first = (order / 6).floor()
    rest = order - 6 * first
    second, third = (rest / 2).floor(), rest % 2
    second = second + (second >= first)  # the digits count what is left, in ascending order
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    third = third + (third >= low)
    third = third + (third >= high)
    some = order >= 0
    return tuple(torch.where(some, turn, -1.0) for turn in (first, second, third, 6 - first - second - third))


def by_channel(values: tuple[float, ...], x: Tensor) -> Tensor:
    """One value for each channel, (C, 1, 1), made on the device of x."""
    return torch.cat([x.new_full((1, 1, 1), value) for value in values])


def _where(mask: Tensor, operation: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
    """x with the operation applied to the samples of the mask, (B,) bool."""
    if torch.compiler.is_compiling():  # fixed shapes fuse; computing for nobody costs less than a synchronisation
        return torch.where(mask.view(-1, 1, 1, 1), operation(x, *parameters), x)
    chosen = mask.nonzero().squeeze(1)
    if len(chosen) == 0:
        return x
    if len(chosen) == len(x):
        return operation(x, *parameters)
    return x.index_copy(0, chosen, operation(x[chosen], *(p[chosen] for p in parameters)))


@functools.cache
def _on_cuda() -> Callable[[Tensor, Tensor], Tensor]:
    """`chain`, compiled at its first call, or as it is where the compiler does not work."""
    working: Callable[[Tensor, Tensor], Tensor] = torch.compile(chain, dynamic=False)

    def run(pixels: Tensor, colour: Tensor) -> Tensor:
        nonlocal working
        try:
            return working(pixels, colour)
        except Exception as error:
            if working is chain or isinstance(error, torch.OutOfMemoryError):
                raise
            warnings.warn(
                f"colours run uncompiled, and the step about a tenth slower: {type(error).__name__}", stacklevel=3
            )
            working = chain
            return chain(pixels, colour)

    return run
