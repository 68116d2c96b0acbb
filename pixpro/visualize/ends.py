"""A run's settings, its checkpoint and a few images -> pictures of what its network saw before and after training."""

from collections.abc import Mapping, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from pixpro.checkpoints.convert import checkpoint_from
from pixpro.checkpoints.initialise import MODEL_SETTINGS, initialise, seeded_model
from pixpro.visualize.dense_features import DenseFeatures, dense_features, load_dense_features
from pixpro.visualize.feature_panels import colours_panel, component_colours, cosines, seen_panel, whole_image
from pixpro.visualize.page import Picture
from pixpro.visualize.pair import Pair, busiest_cell, displayable, pair_of
from pixpro.visualize.pair_panels import pair_panels, pair_summary
from pixpro.visualize.sheet import sheet

COLUMN = 4.4  # inches: wide enough for three columns on a desk, and letters that can be read on a phone
MATCHED = 0.25  # share of cells with a match in pairs that are worth a look
TRIES = 20
VIEW_CELLS = 7  # along a side of a view, at least: so many are there with the published recipe


def untrained(settings: Mapping[str, Any]) -> DenseFeatures:
    """The network that a run of these settings begins with, made again from its seed and --init.

    UserError when the weights of --init cannot be read any more.
    """
    with torch.random.fork_rng(devices=[]):
        model = seeded_model(**{name: settings[name] for name in MODEL_SETTINGS if name in settings})
        if settings.get("init"):
            initialise(model, settings["init"])
        checkpoint = checkpoint_from({"model": model.state_dict(), "config": dict(settings), "epoch": 0})
        return dense_features(checkpoint, "the untrained network")


def both_ends(settings: Mapping[str, Any], checkpoint: Path, images: Sequence[Tensor]) -> dict[str, DenseFeatures]:
    """The network before and after training, by what to call it; the statistics of both are of views of these images.

    Those of a new network say nothing, those of a young one lag behind: by them one would compare statistics.
    """
    networks = {"before training": untrained(settings), "after training": load_dense_features(checkpoint)}
    for network in networks.values():
        pairs = [one_pair(settings, network, number, image) for number, image in enumerate(images)]
        parts = [part for part in (network.trunk, network.projector) if part is not None]
        views = torch.cat([view.pixels for pair in pairs for view in pair.views])
        update_bn([views], nn.Sequential(*parts).eval())
    return networks


def side(settings: Mapping[str, Any], network: DenseFeatures, cells: int) -> int:
    """Pixels along a side, as many as the run's views have, or for this number of cells to look at."""
    return max(settings["image_size"] * cells // VIEW_CELLS, cells * 224 // network.cells(224))


def one_pair(settings: Mapping[str, Any], network: DenseFeatures, number: int, image: Tensor) -> Pair:
    """Two views of an image as in the run: the first ones, by their seed, of which a good part matches."""
    given = {name: settings[name] for name in ("distance", "threshold") if name in settings}
    size = side(settings, network, VIEW_CELLS)
    for seed in range(TRIES):
        pair = pair_of(image, f"{number}", image_size=size, cells=network.cells(size), seed=seed, **given)
        if pair.positives.any(1).mean() >= MATCHED:
            break
    return pair


def coloured(settings: Mapping[str, Any], network: DenseFeatures, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The network's cells of whole images, at the scale of the run's views, as colours (h, w, 3): the same in all."""
    shorter = side(settings, network, 2 * VIEW_CELLS)
    return component_colours([network.stages(whole_image(image, shorter))["trunk"] for image in images])


def end_pictures(
    settings: Mapping[str, Any], networks: Mapping[str, DenseFeatures], images: Sequence[Tensor]
) -> list[list[Picture]]:
    """For each image three pictures: its pair, what one cell is like, and its features in colour."""
    rows = []
    for number, image in enumerate(images):
        pair = one_pair(settings, networks["after training"], number, image)
        cell = busiest_cell(pair.positives)
        source, *views = pair_panels(pair, cell)
        original = source._replace(note="", draw=methodcaller("imshow", pair.image))
        seen, features = [], []
        for name, network in networks.items():
            maps = [network.stages(view.pixels)["trunk"] for view in pair.views]
            panel = seen_panel(displayable(pair.views[1].pixels[0]), cosines(*maps)[cell], pair.positives[cell])
            seen.append(panel._replace(title=f"View 2, {name}"))
            (colours,) = coloured(settings, network, [pair.image])
            features.append(colours_panel(name.capitalize(), colours, source.aspect))
        ends = " and ".join(networks)
        alike = f"How like the framed cell of view 1 the cells of view 2 are, {ends}"
        rows.append(
            [
                Picture(sheet([[source], views], width=COLUMN), pair_summary(pair, cell)),
                Picture(sheet([views[:1], seen], width=COLUMN), alike),
                Picture(sheet([[original], features], width=COLUMN), f"Dense features in colour, {ends}"),
            ]
        )
    return rows
