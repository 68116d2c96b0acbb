"""The small networks of 1x1 convolutions that sit on feature maps: projectors, predictors, transforms."""

from torch import Tensor, nn


class ConvHead(nn.Module):
    """1x1 convolution - BatchNorm - ReLU - 1x1 convolution: (B, in_dim, H, W) -> (B, out_dim, H, W).

    `MLP2d` of the official code, with its parameter names.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv2d(in_dim, hidden_dim, kernel_size=1)
        self.bn1 = nn.BatchNorm2d(hidden_dim)
        self.relu1 = nn.ReLU(inplace=True)
        self.linear2 = nn.Conv2d(hidden_dim, out_dim, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear2(self.relu1(self.bn1(self.linear1(features))))
