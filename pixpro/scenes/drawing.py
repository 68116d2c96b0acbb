"""One sample scene: a background, several objects that may hide each other, and what is visible of each."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from pixpro.scenes.backgrounds import BACKGROUNDS, noise, random_palette
from pixpro.scenes.objects import OBJECTS

CLASSES = tuple(OBJECTS)
SIDES = (
    (400, 300),
    (300, 400),
    (320, 320),
    (384, 256),
    (256, 384),
    (352, 264),
    (264, 352),
    (400, 240),
    (288, 288),
)


class Scene(NamedTuple):
    """A drawn scene; object k of `labels` covers the pixels where `instances` is k + 1."""

    pixels: np.ndarray  # (H, W, 3) uint8
    instances: np.ndarray  # (H, W) uint8, 0 is background
    labels: list[int]  # index into CLASSES
    visible: list[float]  # share of the whole object that can be seen, 0..1


def _place(rng: np.random.Generator, height: int, width: int) -> tuple[float, float, float]:
    # log-uniform sizes: as many small objects as large ones
    radius = 0.5 * min(height, width) * 0.14 ** rng.uniform(0.15, 1.0)
    margin = 0.6 * radius
    return radius, rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)


def _shadow(canvas: np.ndarray, alpha: np.ndarray, top: int, left: int, radius: float) -> None:
    reach = max(2, int(radius * 0.12))
    soft = Image.fromarray((alpha * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(reach))
    share = np.asarray(soft, np.float32)[..., None] / 255
    region = canvas[top + reach : top + reach + alpha.shape[0], left + reach : left + reach + alpha.shape[1]]
    region *= 1 - 0.5 * share[: region.shape[0], : region.shape[1]]


def _draw_object(rng: np.random.Generator, canvas: np.ndarray, label: int, place: tuple[float, float, float]):
    """Paint one object; its coverage (h, w) in 0..1, top and left come back, and its full size in pixels."""
    height, width, _ = canvas.shape
    radius, cx, cy = place
    reach = int(np.ceil(radius * 1.1)) + 2
    top, left = max(0, int(cy) - reach), max(0, int(cx) - reach)
    bottom, right = min(height, int(cy) + reach), min(width, int(cx) + reach)
    y, x = np.ogrid[int(cy) - reach : int(cy) + reach, int(cx) - reach : int(cx) + reach]
    angle = rng.uniform(-np.pi, np.pi) if label != CLASSES.index("fish") else rng.uniform(-0.5, 0.5)
    cos, sin = math.cos(angle), math.sin(angle)
    squeeze = rng.uniform(0.85, 1.0)
    flip = -1 if rng.random() < 0.5 else 1
    x, y = ((x + 0.5 - cx) / radius).astype(np.float32), ((y + 0.5 - cy) / radius).astype(np.float32)
    u, v = flip * (x * cos + y * sin), (y * cos - x * sin) / squeeze
    distance, colour = OBJECTS[CLASSES[label]](rng, u, v, random_palette(rng))
    alpha = np.clip(0.5 - distance * radius, 0, 1)
    full = float((alpha > 0.5).sum())
    # light from the upper left, a darker rim, and the unevenness of real surfaces
    light = 1.04 - 0.22 * (x + y) - 0.3 * np.clip(1 + distance * 5, 0, 1) ** 2 + 0.22 * (noise(rng, *u.shape) - 0.5)
    inside = np.s_[top - int(cy) + reach : bottom - int(cy) + reach, left - int(cx) + reach : right - int(cx) + reach]
    alpha, colour = alpha[inside], (colour * light[..., None])[inside]
    _shadow(canvas, alpha, top, left, radius)
    region = canvas[top:bottom, left:right]
    region += (colour - region) * alpha[..., None]
    return alpha, top, left, full


def draw_scene(seed: int, index: int) -> Scene:
    """Scene number `index` of the series `seed`; the same numbers give the same pixels."""
    rng = np.random.default_rng([seed, index])
    width, height = SIDES[rng.integers(len(SIDES))]
    width, height = width - int(rng.integers(0, 17)), height - int(rng.integers(0, 17))
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    canvas = np.ascontiguousarray(background(rng, height, width, random_palette(rng)), np.float32)
    places = sorted((_place(rng, height, width) for _ in range(rng.integers(4, 11))), reverse=True)
    instances = np.zeros((height, width), np.uint8)
    labels, sizes = [], []
    for number, place in enumerate(places, start=1):
        label = int(rng.integers(len(CLASSES)))
        alpha, top, left, full = _draw_object(rng, canvas, label, place)
        instances[top : top + alpha.shape[0], left : left + alpha.shape[1]][alpha > 0.5] = number
        labels.append(label)
        sizes.append(full)
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    canvas *= (1 + rng.uniform(-0.18, 0.18) * x + rng.uniform(-0.18, 0.18) * y).astype(np.float32)[..., None]
    canvas += rng.standard_normal((height, width, 1), np.float32) * 3
    seen = np.bincount(instances.ravel(), minlength=len(labels) + 1)[1:]
    visible = [float(count / size) for count, size in zip(seen, sizes, strict=True)]
    return Scene(np.clip(canvas, 0, 255).astype(np.uint8), instances, labels, visible)
