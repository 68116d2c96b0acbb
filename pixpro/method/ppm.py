"""Pixel propagation: each cell becomes a mix of the cells of its view that look like it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixpro.method.heads import ConvHead
from pixpro.method.numerics import at_least_float32, by_images, full_precision


class PixelPropagation(nn.Module):
    """Propagated cells y_i = sum_j max(cos(x_i, x_j), floor)^sharpness * unit(g(x_j)): (B, C, H, W) -> same shape.

    j runs over all cells of the view, i included; there is no softmax and no division by the number of cells.
    g is `num_layers` 1x1 convolutions: 0 none, 1 a single one, 2 with BatchNorm and ReLU between.
    arXiv:2011.10043 section 3.2; the normalisation of g(x) follows `featprop` of the official code.
    """

    def __init__(
        self, channels: int, sharpness: float = 2.0, num_layers: int = 1, similarity_floor: float = 0.0
    ) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.similarity_floor = similarity_floor
        if num_layers == 0:
            self.transform: nn.Module = nn.Identity()
        elif num_layers == 1:
            self.transform = nn.Conv2d(channels, channels, kernel_size=1)
        elif num_layers == 2:
            self.transform = ConvHead(channels, channels, channels)
        else:
            raise ValueError(f"num_layers is {num_layers}; the propagation module has 0, 1 or 2 layers")

    def forward(self, features: Tensor) -> Tensor:
        values = self.transform(features)
        with full_precision(features.device):
            values = F.normalize(at_least_float32(values), dim=1).flatten(2)
            mixed = by_images(self.mix, values, features, cells=values.shape[2])
            return torch.cat(mixed).view_as(features)

    def mix(self, values: Tensor, features: Tensor) -> Tensor:
        """Values (B, C, N) summed over the cells of a view with the weights that its features (B, C, H, W) give."""
        return torch.bmm(values, self.similarity(features).transpose(1, 2))

    def similarity(self, features: Tensor) -> Tensor:
        """Weights of the propagation: (B, N, N); row i holds what each cell j contributes to cell i."""
        cells = F.normalize(at_least_float32(features), dim=1).flatten(2)
        cosine = torch.bmm(cells.transpose(1, 2), cells).clamp(min=self.similarity_floor)
        if self.sharpness < 1:
            cosine = cosine + 1e-6  # the slope of x^sharpness is infinite at 0
        return cosine**self.sharpness
