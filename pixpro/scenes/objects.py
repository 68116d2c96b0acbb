"""Objects of the sample scenes: an outline and a texture each, in their own coordinates u, v in -1..1."""

from collections.abc import Callable

import numpy as np

from pixpro.scenes.backgrounds import blend, noise, ramp

Fields = tuple[np.ndarray, np.ndarray]  # signed distance to the outline (< 0 inside), colours (h, w, 3)


def _smooth(value: np.ndarray, width: float = 0.06) -> np.ndarray:
    return np.clip(value / width + 0.5, 0, 1)


def ball(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, colours: np.ndarray) -> Fields:
    """A beach ball: coloured wedges that meet off centre, shaded like a sphere."""
    r = np.hypot(u, v)
    bulge = 1 + 0.5 * np.clip(r, 0, 1) ** 2
    wedge = np.arctan2(v * bulge - 0.35, u * bulge + 0.2) / np.pi * int(rng.integers(3, 6))
    colour = blend(colours[0], colours[1], _smooth(np.sin(wedge * np.pi), 0.15))
    cap = np.hypot(u * bulge + 0.2, v * bulge - 0.35)
    return r - 1, blend(colours[2], colour, _smooth(cap - 0.2))


def ring(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, colours: np.ndarray) -> Fields:
    """A doughnut with icing and sprinkles."""
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    icing = 0.25 + 0.05 * np.sin(angle * int(rng.integers(5, 9))) - np.abs(r - 0.68)
    seeds = noise(rng, u.shape[0], u.shape[1], 2)
    sprinkle = _smooth(np.abs(np.sin(angle * 11 + seeds * 3)) * np.abs(np.sin(r * 23 + angle * 3)) - 0.72, 0.1)
    top = blend(colours[0], colours[1], sprinkle)
    return np.abs(r - 0.68) - 0.32, blend(np.array([196, 140, 84], np.float32), top, _smooth(icing))


def star(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, colours: np.ndarray) -> Fields:
    """A star whose arms are lit on one side and dark on the other, with a band along the edge."""
    arms = int(rng.integers(5, 8))
    step = 2 * np.pi / arms
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    turn = np.abs((angle + step / 2) % step - step / 2)
    inner = 0.48
    run, rise = inner * np.cos(step / 2) - 1, inner * np.sin(step / 2)
    length = np.hypot(run, rise)
    outline = (rise * (r * np.cos(turn) - 1) - run * r * np.sin(turn)) / length
    side = _smooth(np.sin((angle % step) / step * 2 * np.pi), 0.3)
    colour = blend(colours[0], colours[0] * 0.62, side)
    return outline, blend(colours[1], colour, _smooth(-outline - 0.12))


def flower(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, colours: np.ndarray) -> Fields:
    """A flower: petals with fine lines around a dotted heart."""
    petals = int(rng.integers(5, 10))
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    wave = np.abs(np.cos(angle * petals / 2))
    edge = 0.62 + 0.38 * np.sqrt(wave)
    lines = 0.85 + 0.15 * np.sin(angle * petals * 6)
    petal = ramp(np.stack([colours[0] * 0.6, colours[0], colours[1]]), r / edge) * lines[..., None]
    dots = 0.75 + 0.25 * np.sign(np.sin(u * 38) * np.sin(v * 38))
    return (r - edge) * 0.8, blend(colours[2] * dots[..., None], petal, _smooth(r - 0.3))


def leaf(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, colours: np.ndarray) -> Fields:
    """A pointed leaf with a midrib and side veins."""
    bend = rng.uniform(-0.25, 0.25)
    v = v - bend * (1 - u * u)
    outline = np.hypot(u, np.abs(v) + 0.75) - 1.25
    vein = np.abs(np.sin((u - np.abs(v) * 0.9) * 12)) * 0.5 + 0.5
    rib = _smooth(np.abs(v) - 0.035, 0.04)
    green = ramp(
        np.stack([colours[0], colours[0] * 0.55 + np.array([20, 60, 12], np.float32), colours[1]]),
        0.3 + 0.7 * np.abs(v) + 0.2 * u,
    )
    return outline, blend(colours[2], green * np.clip(vein * 1.5, 0.6, 1)[..., None], rib)


def gem(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, colours: np.ndarray) -> Fields:
    """A cut stone: flat facets of different brightness around a table."""
    sides = int(rng.integers(5, 9))
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    step = 2 * np.pi / sides
    facet = np.floor(angle / step).astype(int) % sides
    outline = r * np.cos(angle % step - step / 2) - np.cos(step / 2)
    bright = rng.uniform(0.5, 1.25, (2, sides)).astype(np.float32)
    inner = _smooth(outline + 0.35, 0.04)
    half = (angle % step > step / 2).astype(np.float32) * 0.12
    light = bright[0][facet] * inner + (1.15 + 0.3 * (u + v) * -0.5) * (1 - inner) + half * inner
    return outline, (colours[0] * 0.8 + 25) * light[..., None]


def fish(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, colours: np.ndarray) -> Fields:
    """A fish with scales, bands, a tail and an eye."""
    body = (np.hypot((u + 0.12) / 0.86, v / 0.55) - 1) * 0.55
    tail = np.maximum(np.abs(v) - 0.1 - (u - 0.5) * 0.95, np.maximum(0.5 - u, u - 0.98 + 0.3 * (0.5 - np.abs(v))))
    row = np.floor(v * 9)
    scale = np.hypot((u * 9 + 0.5 * (row % 2)) % 1 - 0.5, v * 9 % 1)
    colour = blend(colours[0], colours[0] * 0.66, _smooth(scale - 0.55, 0.2))
    band = _smooth(np.sin(u * rng.uniform(7, 13) + rng.uniform(0, 6)) - 0.35, 0.2) * (u > -0.45)
    colour = blend(colour, colours[1], band * 0.9)
    eye = np.hypot(u + 0.62, v + 0.12)
    colour = blend(colour, np.full(3, 245, np.float32), _smooth(0.13 - eye))
    return np.minimum(body, tail), blend(colour, np.full(3, 20, np.float32), _smooth(0.07 - eye))


def moon(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, colours: np.ndarray) -> Fields:
    """A crescent with craters."""
    bite = np.hypot(u - 0.55, v)
    outline = np.maximum(np.hypot(u, v) - 1, rng.uniform(0.68, 0.86) - bite)
    rough = noise(rng, *u.shape)
    craters = _smooth(np.sin(u * 9 + rough * 4) * np.sin(v * 9 + rough * 5) - 0.45, 0.2)
    pale = colours[0] * 0.45 + 130
    return outline, blend(pale * (0.8 + 0.3 * rough)[..., None], pale * 0.6, craters)


OBJECTS: dict[str, Callable[..., Fields]] = {
    shape.__name__: shape for shape in (ball, ring, star, flower, leaf, gem, fish, moon)
}
