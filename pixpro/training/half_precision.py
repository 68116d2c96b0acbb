"""Which type of numbers a device computes with: what a run asks for, and whether it is emulated there."""

import torch


def computes(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device has instructions for a half-precision type; CPUs without them take many times as long."""
    if device.type == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if dtype == torch.bfloat16:
        return torch.cpu._is_avx512_bf16_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_fp16_supported()


def amp_dtype(setting: str, device: torch.device, bf16: bool | None = None) -> torch.dtype | None:
    """The half-precision type of a setting (auto, bf16, fp16, off) on a device; None for full precision.

    auto is bf16 where the device computes it natively, else fp16 on GPUs and full precision on CPUs. bf16: whether
    all processes compute it natively, where there are several; by default this device is asked.
    """
    if setting == "off":
        return None
    if setting != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16}[setting]
    bf16 = computes(torch.bfloat16, device) if bf16 is None else bf16
    if device.type == "cuda":
        return torch.bfloat16 if bf16 else torch.float16
    return torch.bfloat16 if bf16 else None


def emulation(dtype: torch.dtype | None, device: torch.device) -> str:
    """A line to print when the device has no instructions for the type, so that it is emulated; "" otherwise."""
    if dtype is None or computes(dtype, device):
        return ""
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    kind = {"cuda": "GPU", "cpu": "CPU"}[device.type]
    return (
        f"warning: --amp {name}: this {kind} has no instructions for it and emulates it, which may take ten times as "
        "long; --amp auto chooses what the machine computes\n"
    )
