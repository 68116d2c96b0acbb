"""Backgrounds of the sample scenes, drawn from noise and palettes: hills, planks, tiles, cloth, stone."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image

SHEET = 640  # side of a noise sheet; larger than any scene, so that every crop of it fits

PALETTES = (
    ("264653", "2a9d8f", "e9c46a", "f4a261", "e76f51"),
    ("355070", "6d597a", "b56576", "e56b6f", "eaac8b"),
    ("0b3954", "087e8b", "bfd7ea", "ff5a5f", "c81d25"),
    ("606c38", "283618", "fefae0", "dda15e", "bc6c25"),
    ("22577a", "38a3a5", "57cc99", "80ed99", "c7f9cc"),
    ("3d405b", "81b29a", "f4f1de", "f2cc8f", "e07a5f"),
    ("5f0f40", "9a031e", "fb8b24", "e36414", "0f4c5c"),
    ("231942", "5e548e", "9f86c0", "be95c4", "e0b1cb"),
    ("003049", "669bbc", "fdf0d5", "c1121f", "780000"),
    ("4a4e69", "9a8c98", "f2e9e4", "c9ada7", "22223b"),
    ("1b4332", "40916c", "b7e4c7", "ffb703", "fb8500"),
    ("14213d", "8ecae6", "219ebc", "ffb703", "e5e5e5"),
)


def random_palette(rng: np.random.Generator) -> np.ndarray:
    """Five matching colours (5, 3) in 0..255, in random order and slightly shifted."""
    colours = PALETTES[rng.integers(len(PALETTES))]
    rgb = np.array([[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in colours], np.float32)
    return np.clip(rng.permutation(rgb) + rng.normal(0, 10, (5, 3)), 8, 247).astype(np.float32)


@lru_cache(maxsize=16)
def _sheet(seed: int, number: int, stretch: int) -> np.ndarray:
    rng = np.random.default_rng([seed, number, stretch, 77])
    total = np.zeros((SHEET, SHEET), np.float32)
    for octave in range(6):
        rows = 4 * 2**octave
        grid = rng.normal(size=(rows, max(2, rows // stretch))).astype(np.float32)
        total += np.asarray(Image.fromarray(grid).resize((SHEET, SHEET), Image.Resampling.BICUBIC)) / 1.8**octave
    ranks = (total - total.mean()) / total.std()
    return 1 / (1 + np.exp(-1.7 * ranks))  # logistic: close to evenly spread over 0..1


def noise(rng: np.random.Generator, height: int, width: int, stretch: int = 1) -> np.ndarray:
    """Cloud-like values in 0..1, (height, width) <= 640; `stretch` draws them out along x, like grain."""
    sheet = _sheet(0, int(rng.integers(4)), stretch)
    top, left = rng.integers(SHEET - height + 1), rng.integers(SHEET - width + 1)
    crop = sheet[top : top + height, left : left + width]
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Colours (..., 3) between `first` (share 0) and `second` (share 1)."""
    return first + (second - first) * share[..., None]


def ramp(colours: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Colours (..., 3) looked up along a row of colours (K, 3); position in 0..1."""
    table = np.linspace(0, len(colours) - 1, 256)
    lookup = np.stack([np.interp(table, np.arange(len(colours)), c) for c in colours.T], 1).astype(np.float32)
    return lookup[np.clip(position * 255, 0, 255).astype(np.uint8)]


def _grid(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    angle = rng.uniform(-0.6, 0.6) + (math.pi / 2 if rng.random() < 0.3 else 0)
    cos, sin = math.cos(angle), math.sin(angle)
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2
    x = np.arange(width, dtype=np.float32) - width / 2
    return x * cos + y * sin, y * cos - x * sin


def hills(rng: np.random.Generator, height: int, width: int, colours: np.ndarray) -> np.ndarray:
    """Sky with clouds over three to five ridges, (height, width, 3)."""
    y = np.arange(height, dtype=np.float32)[:, None]
    pale = colours[0] * 0.35 + 165
    sky = blend(colours[0] * 0.7 + 50, pale, np.broadcast_to(y / height, (height, width)))
    image = blend(sky, np.full(3, 250, np.float32), np.clip(noise(rng, height, width, 2) * 2.4 - 1.3, 0, 0.9))
    ridges = int(rng.integers(3, 6))
    for ridge in range(ridges):
        line = noise(rng, SHEET, width)[rng.integers(SHEET)] * rng.uniform(0.15, 0.4)
        top = height * ((ridge + 0.7) / (ridges + 0.7) * 0.8 + 0.12 - line)
        depth = np.clip((y - top) / (0.5 * height), 0, 1)
        near = (ridge + 1) / ridges
        colour = colours[1 + ridge % 4] * (0.45 + 0.55 * near) + pale * 0.45 * (1 - near)
        texture = noise(rng, height, width, 1 + ridge % 3) * (0.5 + 0.4 * near) + 0.75 - 0.25 * near - depth * 0.3
        image = blend(image, colour * texture[..., None], np.clip(y - top, 0, 1))
    return image


def planks(rng: np.random.Generator, height: int, width: int, colours: np.ndarray) -> np.ndarray:
    """Wooden boards with grain, each in its own tone, (height, width, 3)."""
    x, y = _grid(rng, height, width)
    board = rng.uniform(28, 70)
    row = np.floor(y / board).astype(np.int16)
    tone = rng.random(64, np.float32)[row % 64]
    grain = noise(rng, height, width, 8)
    rings = 0.5 + 0.5 * np.sin(grain * rng.uniform(20, 45) + tone * 9 + y / board)
    seam = np.clip(np.abs((y / board) % 1 - 0.5) * board - board / 2 + 2.2, 0, 1)
    joint = np.abs((x + row % 3 * 97) % 190 - 95) < 1.2
    wood = blend(
        colours[0] * 0.6 + np.array([70, 42, 22], np.float32),
        colours[1] * 0.5 + np.array([110, 82, 55], np.float32),
        tone,
    )
    return (
        wood * (0.72 + 0.28 * rings + 0.2 * (grain - 0.5))[..., None] * (1 - 0.6 * np.maximum(seam, joint))[..., None]
    )


def tiles(rng: np.random.Generator, height: int, width: int, colours: np.ndarray) -> np.ndarray:
    """A wall of bricks or square tiles with mortar between them, (height, width, 3)."""
    x, y = _grid(rng, height, width)
    tall = rng.uniform(20, 52)
    wide = tall * (1.0, 1.8, 2.4)[rng.integers(3)]
    row = np.floor(y / tall).astype(np.int16)
    x = x + np.float32(wide / 2) * (row % 2).astype(np.float32) * int(rng.integers(2))
    column = np.floor(x / wide).astype(np.int16)
    pick = rng.random((64, 64), np.float32)[row % 64, column % 64]
    edge = np.minimum((y / tall % 1) * tall, (x / wide % 1) * wide)
    edge = np.minimum(edge, np.minimum((1 - y / tall % 1) * tall, (1 - x / wide % 1) * wide))
    surface = noise(rng, height, width)
    tile = ramp(colours[:4], pick) * (0.75 + 0.3 * surface + 0.1 * (x / wide % 1) - 0.1 * (y / tall % 1))[..., None]
    return blend(colours[4] * 0.3 + 120 * (0.6 + 0.5 * surface[..., None]), tile, np.clip((edge - 1.2) / 1.5, 0, 1))


def cloth(rng: np.random.Generator, height: int, width: int, colours: np.ndarray) -> np.ndarray:
    """Plaid cloth with a weave and soft folds, (height, width, 3)."""
    x, y = _grid(rng, height, width)
    folds = noise(rng, height, width, 2)
    period = rng.uniform(70, 150)
    bands = rng.random((2, 12), np.float32).repeat(2, 1) * (rng.random((2, 24)) < 0.7)
    across = bands[0][np.floor((x + 14 * folds) / period * 24).astype(np.int16) % 24]
    along = bands[1][np.floor((y + 14 * folds) / period * 24).astype(np.int16) % 24]
    weave = 0.94 + 0.06 * np.sign(np.sin(x * 2.1) * np.sin(y * 2.1))
    image = blend(blend(colours[0], colours[1], across * 0.8), colours[2], along * 0.6)
    return image * (weave * (0.6 + 0.55 * folds))[..., None]


def marble(rng: np.random.Generator, height: int, width: int, colours: np.ndarray) -> np.ndarray:
    """Layered stone with veins, (height, width, 3)."""
    field = noise(rng, height, width, int(rng.integers(1, 4)))
    veins = np.abs(np.sin((noise(rng, height, width) + 0.4 * field) * rng.uniform(8, 16)))
    return ramp(colours, field) * (0.55 + 0.45 * np.clip(veins * 2.2, 0, 1))[..., None]


def pebbles(rng: np.random.Generator, height: int, width: int, colours: np.ndarray) -> np.ndarray:
    """Rounded stones side by side, shaded from the upper left, (height, width, 3)."""
    x, y = _grid(rng, height, width)
    size = rng.uniform(22, 50)
    u, v = x / size + 32, y / size + 32
    shift, tone = rng.uniform(0.12, 0.88, (2, 64, 64)).astype(np.float32), rng.random((64, 64), np.float32)
    i, j = np.floor(v).astype(np.int16), np.floor(u).astype(np.int16)
    fv, fu = v - i.astype(np.float32), u - j.astype(np.float32)
    best = second = np.full(u.shape, 9, np.float32)
    pick = light = np.zeros(u.shape, np.float32)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            row, column = (i + di) % 64, (j + dj) % 64
            dy, dx = fv - shift[0, row, column] - di, fu - shift[1, row, column] - dj
            far = np.sqrt(dx * dx + dy * dy)
            nearer = far < best
            second = np.where(nearer, best, np.minimum(second, far))
            pick, light = np.where(nearer, tone[row, column], pick), np.where(nearer, -dx - dy, light)
            best = np.minimum(best, far)
    surface = 0.7 + 0.35 * noise(rng, height, width) + 0.3 * light
    stone = ramp(colours, pick) * np.clip(surface, 0.3, 1.3)[..., None]
    return blend(colours[0] * 0.25, stone, np.clip((second - best) * 5, 0, 1))


BACKGROUNDS = (hills, hills, planks, tiles, cloth, marble, pebbles)
