"""The step of the official code (zdaxie/PixPro), re-stated: what it computes and how often, in plain words.

Two forwards per branch, keys moved tensor by tensor inside the forward pass, a mask of floats against a full
matrix of cosines, LARS tensor by tensor around SGD, the loss read by the host in every step. Left out, as for ours:
DistributedDataParallel and the synchronisation of BatchNorm.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.steps.contenders.case import LR, MOMENTUM, WEIGHT_DECAY, Case, Contestant, plain_step, trunk
from pixpro.data.views import View
from pixpro.method.heads import ConvHead

THRESHOLD = 0.7


class OfficialPixPro(nn.Module):
    """forward(view1, view2) -> loss; moves its key networks first."""

    def __init__(self, arch: str, hidden_dim: int, dim: int) -> None:
        super().__init__()
        self.encoder, channels = trunk(arch)
        self.projector = ConvHead(channels, hidden_dim, dim)
        self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.transform = nn.Conv2d(dim, dim, kernel_size=1)

    def forward(self, view1: View, view2: View) -> Tensor:
        prediction1 = F.normalize(self.propagate(self.projector(self.encoder(view1.pixels))), dim=1)
        prediction2 = F.normalize(self.propagate(self.projector(self.encoder(view2.pixels))), dim=1)
        with torch.no_grad():
            self.move_keys()
            key1 = F.normalize(self.key_projector(self.key_encoder(view1.pixels)), dim=1)
            key2 = F.normalize(self.key_projector(self.key_encoder(view2.pixels)), dim=1)
        return direction(prediction1, key2, view1.box, view2.box) + direction(prediction2, key1, view2.box, view1.box)

    def move_keys(self) -> None:
        """Average the parameters of the key networks with the trained ones."""
        move_each(self.key_encoder, self.encoder, MOMENTUM)
        move_each(self.key_projector, self.projector, MOMENTUM)

    def propagate(self, cells: Tensor) -> Tensor:
        """Every cell as the sum of all transformed cells of its view, weighted by squared cosines above zero."""
        values = F.normalize(self.transform(cells), dim=1).flatten(2)
        unit = F.normalize(cells, dim=1).flatten(2)
        weights = torch.bmm(unit.transpose(1, 2), unit).clamp(min=0.0) ** 2.0
        return torch.bmm(values, weights.transpose(1, 2)).view(cells.shape)


@torch.no_grad()
def move_each(momentum: nn.Module, online: nn.Module, coefficient: float) -> None:
    """The momentum update as a loop that gives every parameter a new tensor."""
    for key, query in zip(momentum.parameters(), online.parameters(), strict=True):
        key.data = key.data * coefficient + query.data * (1.0 - coefficient)


def direction(prediction: Tensor, key: Tensor, box: Tensor, key_box: Tensor) -> Tensor:
    """-2 x mean over images of the mean cosine of the cells whose centres are near each other."""
    height, width = prediction.shape[2:]
    x, y, diagonal = grid(box, height, width)
    key_x, key_y, key_diagonal = grid(key_box, height, width)
    distance = torch.sqrt((x[:, :, None] - key_x[:, None]) ** 2 + (y[:, :, None] - key_y[:, None]) ** 2)
    mask = (distance / torch.maximum(diagonal, key_diagonal)[:, None, None] < THRESHOLD).float()
    cosine = torch.bmm(prediction.flatten(2).transpose(1, 2), key.flatten(2))
    return -2.0 * ((cosine * mask).sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) + 1e-6)).mean()


def grid(box: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """x and y of the cells' centres, both (B, H * W), and the diagonal of a cell, (B,)."""
    cell_width, cell_height = (box[:, 2] - box[:, 0]) / width, (box[:, 3] - box[:, 1]) / height
    column = torch.arange(width, dtype=box.dtype, device=box.device).repeat(height)
    row = torch.arange(height, dtype=box.dtype, device=box.device).repeat_interleave(width)
    x = (column + 0.5) * cell_width[:, None] + box[:, :1]
    y = (row + 0.5) * cell_height[:, None] + box[:, 1:2]
    return x, y, torch.sqrt(cell_width**2 + cell_height**2)


class LARSOneByOne(torch.optim.SGD):
    """SGD with momentum whose gradients are decayed and scaled first, in a loop over the tensors."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        plain = {"params": [p for p in trained if p.ndim == 1], "decay": 0.0}
        adapted = {"params": [p for p in trained if p.ndim > 1], "decay": weight_decay}
        super().__init__([plain, adapted], lr=lr, momentum=0.9)

    @torch.no_grad()
    def step(self) -> None:
        """One update of all parameters."""
        adapted = self.param_groups[1]
        for parameter in adapted["params"]:
            parameter.grad = parameter.grad.add(parameter, alpha=adapted["decay"])
            norm, grad_norm = parameter.norm(), parameter.grad.norm()
            if norm > 0 and grad_norm > 0:  # read by the host, one tensor after the other
                parameter.grad = parameter.grad.mul(0.001 * norm / (grad_norm + 1e-8))
        super().step()


def build(case: Case, dtype: torch.dtype | None, memory_format: torch.memory_format) -> Contestant:
    """The re-stated step in a precision and a memory format."""
    model = OfficialPixPro(case.arch, case.hidden_dim, case.dim).to(case.device, memory_format=memory_format)
    optimizer = LARSOneByOne(model, LR, WEIGHT_DECAY)
    views = case.views(memory_format)
    step = plain_step(case, optimizer, lambda: model(*views), dtype)

    def run() -> Tensor:
        loss = step()
        loss.item()  # its meters read every loss
        return loss

    return Contestant(model, run)


def default_dtype(device: torch.device) -> torch.dtype:
    """The half precision of plain autocast: fp16 on GPUs, as apex's O1 has it, bf16 on the CPU."""
    return torch.float16 if device.type == "cuda" else torch.bfloat16
