"""JPEG files like ImageNet's (500x375, about 100 KB), drawn: what the benchmarks of the input pipeline read."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, BYTES = 500, 375, 100_000


def draw(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Blobs, edges and grain with the falling spectrum of photographs."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3))
    for octave in range(2, 8):  # amplitude falls as 1 / frequency
        grid = rng.normal(0, 1, (2**octave * 3 // 4, 2**octave, 3)) * (rng.random(3) * 0.6 + 0.7)
        layers = [Image.fromarray(grid[..., c].astype(np.float32)).resize((width, height), 3) for c in range(3)]
        pixels += np.stack([np.asarray(layer) for layer in layers], axis=2) * 160 / 2**octave
    rows, columns = np.mgrid[:height, :width]
    for _ in range(12):  # objects with sharp edges
        y, x, radius = rng.integers(0, height), rng.integers(0, width), rng.integers(10, 90)
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] += rng.normal(0, 40, 3)
    pixels += rng.normal(0, 4, (height, width, 1))
    return Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))


def write(folder: Path, count: int) -> Path:
    """`count` files in the folder, each of the quality that comes closest to 100 KB; existing ones are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        path = folder / f"{seed:04}.jpg"
        if path.exists():
            continue
        image, versions = draw(seed), []
        for quality in (80, 84, 88, 90, 92, 94, 95, 96, 97, 98):
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, subsampling=2)
            versions.append(buffer.getvalue())
        path.write_bytes(min(versions, key=lambda data: abs(len(data) - BYTES)))
    return folder
