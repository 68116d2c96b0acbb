"""How the programs compute on a device: in which precision (--amp), and where a model's weights lie in memory."""

import argparse

import torch
from torch import Tensor, nn

from pixpro.errors import UserError
from pixpro.training.distributed import all_agree
from pixpro.training.half_precision import amp_dtype, emulation
from pixpro.training.processes import Process

NAMES = {None: "off", torch.bfloat16: "bf16", torch.float16: "fp16"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}


def add_option(parser: argparse.ArgumentParser) -> None:
    """Offer --amp."""
    parser.add_argument(
        "--amp",
        choices=("auto", "bf16", "fp16", "off"),
        default="auto",
        help="mixed precision; auto: bf16 where the device computes it, else fp16 on GPUs, off on CPUs",
    )


def resolved(setting: str, device: torch.device) -> tuple[str, str]:
    """What --amp comes to on a device (bf16, fp16 or off), and a line to print about it, or "".

    UserError for fp16 on a CPU: it is for GPUs that do not compute bf16.
    """
    if setting == "fp16" and device.type != "cuda":
        raise UserError("--amp fp16 needs a GPU, and there is none in use; take --amp bf16 or off")
    dtype = amp_dtype(setting, device)
    return NAMES[dtype], emulation(dtype, device)


def require_alike(amp: str, process: Process) -> None:
    """UserError in every process when --amp came to different precisions on their devices."""
    if not all_agree(amp == "bf16", process.device) and not all_agree(amp != "bf16", process.device):
        raise UserError("--amp auto finds bf16 on some of the GPUs only; name one that all have: --amp fp16 or off")


def autocast(amp: str, device: torch.device) -> torch.autocast:
    """A region that computes in a precision that `resolved` gave."""
    return torch.autocast(device.type, dtype=DTYPES[amp], enabled=amp != "off")


def full_precision(device: torch.device) -> torch.autocast:
    """A region inside of `autocast` that computes in the type of its inputs."""
    return torch.autocast(device.type, enabled=False)


def loss_scaler(amp: str, device: torch.device) -> torch.amp.GradScaler:
    """What keeps fp16's gradients in its range; idle in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=amp == "fp16")


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device; on a GPU with channels last, as its convolutions in half precision want them."""
    return model.to(device, memory_format=torch.channels_last) if device.type == "cuda" else model.to(device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; the host does not wait for a copy to a GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Frozen(nn.Module):
    """A network that computes in a precision and answers in float32."""

    def __init__(self, network: nn.Module, amp: str, device: torch.device) -> None:
        super().__init__()
        self.network, self.amp, self.device = placed(network, device), amp, device

    def forward(self, images: Tensor) -> Tensor:
        with autocast(self.amp, self.device):
            return self.network(images).float()
