"""The instance branch: the two views of an image, each pooled to one vector, should agree."""

import torch.nn.functional as F
from torch import Tensor, nn

from pixpro.heads import ConvHead
from pixpro.precision import at_least_float32, full_precision


def pooled(features: Tensor) -> Tensor:
    """The L2-normalised mean over the whole map, whatever its size: (B, C, H, W) -> (B, C)."""
    return F.normalize(at_least_float32(features).mean(dim=(2, 3)), dim=1)


class InstanceRegression(nn.Module):
    """BYOL-like loss of the official code: -2 x mean cosine of predicted and momentum vectors, one direction.

    The predictor works on the map and pooling follows it, as in the official code.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.predictor = ConvHead(dim, hidden_dim, dim)

    def forward(self, online: Tensor, target: Tensor) -> Tensor:
        """online, target: (B, C, H, W) projected maps of the two views, the target's without gradient."""
        prediction = self.predictor(online)
        with full_precision(online.device):
            return -2 * (pooled(prediction) * pooled(target)).sum(dim=1).mean()
