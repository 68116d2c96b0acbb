#!/usr/bin/env python
"""Checkpoint and photograph -> how far detectron2's features are from the checkpoint's, settings right and wrong.

    python feature_parity.py CHECKPOINT IMAGE

Prints ||difference|| / ||features|| of res4 (backbone) and res5 (heads, before the extra norm) of detectron2's C4
model with the converted weights: as configured here, and with one input setting at a time taken from the MSRA
baseline. Needs detectron2.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downstream.conversion.convert import convert, described
from downstream.conversion.names import SHAPES
from downstream.conversion.verify import checkpoint_features, relative_difference
from downstream.conversion.weights_file import MSRA, RGB, image_settings, shape_settings, write_weights
from pixpro.checkpoints.convert import read_checkpoint
from pixpro.errors import UserError, one_line_errors

CONFIGS = Path(__file__).resolve().parent / "configs"
WRONG = {
    "BGR": {"pixel_format": MSRA["pixel_format"]},
    "Caffe's mean (for BGR)": {"pixel_mean": MSRA["pixel_mean"]},
    "std 1": {"pixel_std": MSRA["pixel_std"]},
    "stride in the 1x1": {"stride_in_1x1": MSRA["stride_in_1x1"]},
    "all four: MSRA's settings": MSRA,
}


def c4_model(arch: str, weights: Path, **images: Any) -> nn.Module:
    """detectron2's C4 detector with the converted weights, on the CPU, in evaluation mode.

    images: how it sees them, as `image_settings` takes it.
    """
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from downstream.finetuning import extensions  # noqa: F401  registers the head

    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / "voc_c4_24k.yaml"))
    settings = {**shape_settings(SHAPES[arch]), **image_settings(**images), "MODEL.DEVICE": "cpu"}
    cfg.merge_from_list([part for pair in settings.items() for part in pair])
    model = build_model(cfg).eval()
    DetectionCheckpointer(model).load(str(weights))
    return model


@torch.no_grad()
def c4_features(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """res4 of the backbone and res5 of the heads, before the extra norm; pixels: (1, 3, H, W), RGB, 0..255."""
    image = pixels[0].flip(0) if model.input_format == "BGR" else pixels[0]
    features = {"res4": model.backbone(model.preprocess_image([{"image": image}]).tensor)["res4"]}
    blocks = [block for name, block in model.roi_heads.res5.named_children() if name != "norm"]
    return features | {"res5": nn.Sequential(*blocks)(features["res4"])}


def photograph(path: Path) -> Tensor:
    """The image as (1, 3, H, W), RGB, 0..255."""
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1).copy())[None]
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error}") from error


@one_line_errors
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of train.py or of another project")
    parser.add_argument("image", type=Path, help="any photograph")
    arguments = parser.parse_args()
    checkpoint = read_checkpoint(arguments.checkpoint)
    conversion = convert(checkpoint.state_dict, checkpoint.arch)
    pixels = photograph(arguments.image)
    expected = checkpoint_features(conversion, checkpoint.arch, pixels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pkl"
        write_weights(path, conversion.weights, described(conversion, checkpoint.arch))
        rows = []
        for name, change in {"as configured here": {}, **WRONG}.items():
            found = c4_features(c4_model(checkpoint.arch, path, **(RGB | change)), pixels)
            far = [relative_difference(expected[stage], found[stage]) for stage in ("res4", "res5")]
            rows.append((name, *far))
        print(tabulate(rows, ["settings", "res4", "res5"], floatfmt=".1e"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
