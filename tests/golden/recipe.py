"""Deterministic numpy recipe behind the golden records (numpy only; see README.md).

Every tensor is drawn from its own generator, seeded by its NAME, so no order of creation matters.
Weights use the official state_dict key (without "module.") as NAME.  All draws are made in float64
and rounded once to float32; float64 runs use those float32 values cast up.
"""

import hashlib

import numpy as np


def rng(name):
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.default_rng(seed)


def normal(name, shape, scale=1.0, shift=0.0):
    """Images ("im_1", "im_2/step3", ...), features, probes: standard normal by default."""
    return (shift + scale * rng(name).standard_normal(shape)).astype(np.float32)


def weight(name, shape):
    """Initial value of the parameter or buffer `name` (official key) of the given shape."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_mean":
        return np.zeros(shape, np.float32)
    if leaf == "running_var":
        return np.ones(shape, np.float32)
    if leaf == "bias":  # conv bias and BN beta
        return normal(name, shape, 0.1)
    if len(shape) == 1:  # BN gamma
        return normal(name, shape, 0.1, 1.0)
    fan_in = int(np.prod(shape[1:]))  # conv (O,I,kh,kw) / linear (O,I)
    return normal(name, shape, np.sqrt(2.0 / fan_in))


def probe(name, x):
    """Random projection <x, P> with P = standard normal (float64) from rng("probe:" + name)."""
    x = np.asarray(x, np.float64)
    return float((x * rng("probe:" + name).standard_normal(x.shape)).sum())


def unit(x):
    """L2-normalise over axis 1, in float64, rounded to float32."""
    x = x.astype(np.float64)
    return (x / np.sqrt((x * x).sum(1, keepdims=True))).astype(np.float32)


def features(kind, shape=(2, 256, 7, 7)):
    """Case 1 inputs.  "plain": white noise.  "corr": plus a rank-1 part, so similarities spread over (-1, 1)."""
    x = normal("featprop/feat", shape)
    if kind == "corr":
        n, c, h, w = shape
        x = x + normal("featprop/u", (n, 1, h, w)) * normal("featprop/v", (n, c, 1, 1))
    return x


# (x1, y1, x2, y2) of view 1 and of view 2; x1 > x2 = view flipped horizontally.
COORDS = np.array(
    [
        [[0.05, 0.10, 0.80, 0.90], [0.21, 0.03, 0.97, 0.74]],  # 0 partial overlap
        [[0.90, 0.12, 0.15, 0.83], [0.02, 0.22, 0.71, 0.95]],  # 1 view 1 flipped
        [[0.02, 0.03, 0.33, 0.41], [0.61, 0.57, 0.98, 0.99]],  # 2 NO overlap
        [[0.93, 0.05, 0.11, 0.66], [0.85, 0.31, 0.07, 0.98]],  # 3 both flipped
        [[0.10, 0.08, 0.95, 0.91], [0.77, 0.35, 0.42, 0.69]],  # 4 view 2 flipped, contained in view 1
        [[0.00, 0.00, 1.00, 1.00], [0.00, 0.00, 1.00, 1.00]],  # 5 identical, whole image
        [[0.04, 0.40, 0.52, 0.60], [0.36, 0.01, 0.58, 0.97]],  # 6 wide against tall, crossing
        [[0.03, 0.05, 0.45, 0.52], [0.98, 0.41, 0.39, 0.96]],  # 7 tiny corner overlap, view 2 flipped
    ],
    dtype=np.float64,
).astype(np.float32)


def coords(n, shift=0):
    """coord1, coord2 of shape (n, 4): rows shift, shift+1, ... (mod 8) of COORDS."""
    i = (np.arange(n) + shift) % len(COORDS)
    return COORDS[i, 0].copy(), COORDS[i, 1].copy()
