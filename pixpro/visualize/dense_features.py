"""A checkpoint -> its feature maps for looking at: trunk, projected and propagated cells."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixpro.checkpoints.convert import Checkpoint, read_checkpoint
from pixpro.checkpoints.trunk import backbone
from pixpro.errors import UserError
from pixpro.method.heads import ConvHead
from pixpro.method.ppm import PixelPropagation
from pixpro.method.trunks import OneMap


@dataclass(frozen=True)
class DenseFeatures:
    """The parts of a checkpoint that make dense features, in evaluation mode."""

    label: str  # what the network is, in words
    trunk: nn.Module  # (B, 3, H, W) normalised -> (B, C, H / 32, W / 32), or the map of the stage that the loss saw
    projector: nn.Module | None
    propagation: nn.Module | None

    @torch.no_grad()
    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """The maps (B, C, h, w) that the checkpoint has, in the order of computation, by name."""
        maps = {"trunk": self.trunk(images)}
        if self.projector is not None:
            maps["projection"] = self.projector(maps["trunk"])
            if self.propagation is not None:
                maps["propagated"] = self.propagation(maps["projection"])
        return maps

    def cells(self, image_size: int) -> int:
        """Cells along a side of a view's map."""
        return self.stages(torch.zeros(1, 3, image_size, image_size))["trunk"].shape[2]


def load_dense_features(path: str | os.PathLike) -> DenseFeatures:
    """The dense features of a checkpoint of any known project; heads that it lacks are left out.

    Raises UserError when the file holds no whole backbone or its heads do not fit together.
    """
    return dense_features(read_checkpoint(path), str(path))


def dense_features(checkpoint: Checkpoint, path: str) -> DenseFeatures:
    """The same of a checkpoint that was read from a path."""
    whole = backbone(checkpoint.trunk(), checkpoint.arch)
    trunk = OneMap(whole, checkpoint.trained_up_to)
    try:
        projector = _head(checkpoint.state_dict, "encoder.projector.", trunk.channels)
        propagation = _propagation(checkpoint) if projector is not None else None
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: its heads do not fit together: {str(error).splitlines()[-1].strip()}") from error
    trained = f", epoch {checkpoint.epoch}" if checkpoint.epoch is not None else ""
    label = f"{checkpoint.method} {checkpoint.arch}{trained}"
    for part in (trunk, projector, propagation):
        if part is not None:
            part.eval().requires_grad_(False)
    return DenseFeatures(label, trunk, projector, propagation)


def _below(state_dict: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}


def _head(state_dict: dict[str, Tensor], prefix: str, channels: int) -> ConvHead | None:
    weights = _below(state_dict, prefix)
    first, last = weights.get("linear1.weight"), weights.get("linear2.weight")
    # a projector behind a neck reads other maps than the trunk's last one
    if first is None or last is None or first.shape[1] != channels:
        return None
    head = ConvHead(channels, first.shape[0], last.shape[0])
    head.load_state_dict({"bn1.num_batches_tracked": torch.tensor(0)} | weights)
    return head


def _propagation(checkpoint: Checkpoint) -> PixelPropagation | None:
    weights = _below(checkpoint.state_dict, "propagation.")
    if not weights:
        if checkpoint.method != "pixpro":
            return None
        return PixelPropagation(1, _sharpness(checkpoint), num_layers=0)
    layers = 2 if "transform.linear1.weight" in weights else 1
    channels = weights["transform.linear1.weight" if layers == 2 else "transform.weight"].shape[1]
    module = PixelPropagation(channels, _sharpness(checkpoint), layers)
    counter = {"transform.bn1.num_batches_tracked": torch.tensor(0)} if layers == 2 else {}
    module.load_state_dict(counter | weights)
    return module


def _sharpness(checkpoint: Checkpoint) -> float:
    said = checkpoint.config.get("sharpness", checkpoint.config.get("pixpro_p"))
    return float(said) if isinstance(said, int | float) else 2.0
