"""A trunk and a data set with labels -> its scores, the frozen ones and those after fine-tuning."""

from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn

from benchmarks.evidence.data import Photographs
from benchmarks.evidence.pretrain import Scale
from benchmarks.evidence.transfer import detection_ap, fine_tuned_iou
from benchmarks.evidence.trunk import SMALL, maps_until, trunk_model
from downstream.common.pictures import image_files
from downstream.probes.frozen_trunk import central_views
from downstream.probes.image_scores import ImageFeatureSet, image_scores
from downstream.probes.mask_scores import DenseFeatureSet, count_classes, dense_scores
from pixpro.data.held_out import held_out_pairs
from pixpro.method.numerics import batch_statistics
from pixpro.monitor.matching import matching_scores

CELLS = 8000  # of the training images, for the dense probes
CALIBRATION = 256  # images that give an untrained trunk the statistics that training would have


def scores_of(
    scale: Scale, checkpoint: Path | None, data: Photographs, *, seed: int, folder: Path, fine_tune: bool = True
) -> dict[str, float]:
    """Every score that the data set's labels allow, in 0..1."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # detectors and FCNs start from stage 4 (stride 16) of a ResNet, images are told by its stage 5
    dense = maps_until(trunk_model(scale.arch, checkpoint, seed), "layer4" if scale.arch == SMALL else "layer3")
    whole = maps_until(trunk_model(scale.arch, checkpoint, seed))
    if checkpoint is None:
        files = image_files(data.images)[:CALIBRATION]
        for trunk in (dense, whole):
            update_bn(central_views(files, scale.image_size), trunk)
    dense, whole = dense.to(device), whole.to(device)
    scores = matching(dense, data, scale.image_size, device)
    if data.classes:
        scores |= image_scores(ImageFeatureSet(whole, data.classes, scale.image_size, device), seed)
    if data.masks:
        sets = [
            DenseFeatureSet(dense, pairs, 2 * scale.image_size, device) for pairs in (data.masks.train, data.masks.test)
        ]
        classes = count_classes(data.masks.train + data.masks.test)
        scores |= dense_scores(*sets, classes, seed=seed, limit=CELLS)
        if fine_tune:
            iterations, batch, crop, every = scale.segmentation
            length = {"iterations": iterations, "batch": batch, "crop": crop, "every": every}
            scores |= fine_tuned_iou(dense, data, **length, seed=seed)
    if data.boxes and fine_tune and scale.arch != SMALL:
        scores |= detection_ap(checkpoint, scale.arch, data, seed=seed, folder=folder / f"detection-{data.name}")
    return scores


def matching(trunk: torch.nn.Module, data: Photographs, size: int, device: torch.device) -> dict[str, float]:
    """Dense matching on test images, of two views of each, the same for all trunks."""
    tests = data.classes.test if data.classes else data.masks.test if data.masks else []
    if not tests:
        return {}
    pairs = held_out_pairs([image for image, _ in tests[:: max(1, len(tests) // 128)]][:128], size)
    with batch_statistics(trunk):
        score = matching_scores(lambda views: {"trunk": trunk(views.to(device))}, pairs)["trunk"]
    return {"dense matching": score.accuracy, "dense matching by chance": score.chance}
