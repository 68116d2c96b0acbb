"""The encoders' forward and backward passes as code that torch.compile makes for their shapes and this machine."""

import time

import torch
from torch import Tensor

from pixpro.method.encoder import Embedding
from pixpro.method.model import DensePretraining
from pixpro.training.engine import Trainer
from pixpro.training.nonfinite import Buffers
from pixpro.training.processes import Process


def compile_for(trainer: Trainer, process: Process, images: int, side: int) -> None:
    """Compile the encoders of a trainer for micro-batches of so many images; says what came of it.

    When it fails in one process, all run uncompiled: their numbers would differ in rounding, their speed in more.
    """
    if process.is_main:
        print("compiling the encoders, which can take minutes", flush=True)
    started = time.perf_counter()
    process.at("compiling the encoders", alone=True)
    reason = compile_encoders(trainer.core, images, side, amp_dtype=trainer.amp_dtype)
    with process.together("compiling the encoders", note=reason) as heard:
        pass
    reason = next(filter(None, heard.notes), "")
    if reason:
        leave_uncompiled(trainer.core)
    if process.is_main:
        done = f"compiled in {time.perf_counter() - started:.0f} s"
        print(f"encoders run uncompiled, which is slower and equally right: {reason}" if reason else done, flush=True)


def compile_encoders(
    model: DensePretraining, images: int, side: int, *, amp_dtype: torch.dtype | None = None, backend: str = "inductor"
) -> str:
    """Compile both encoders, now, for views (images, 3, side, side); "" or, if that fails, why they stay as they are.

    The numbers are those of uncompiled encoders up to rounding. Nothing else of the model changes: trial passes with
    blank images make the compiler work, their gradients and statistics are dropped. With BatchNorm synchronised over
    processes all of them must call this together. Takes minutes, less where the compiler's cache is warm.
    """
    encoders = (model.encoder, model.momentum_encoder)
    buffers, reason = Buffers(model.buffers()), ""
    buffers.remember()
    try:
        for encoder in encoders:
            encoder.compile(backend=backend, dynamic=False)
        try_passes(model, images, side, amp_dtype)
    except Exception as error:  # the compiler's own, or that of any tool that it calls
        leave_uncompiled(model)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        buffers.restore()
        model.zero_grad(set_to_none=True)
    return reason


def leave_uncompiled(model: DensePretraining) -> None:
    """Run both encoders as they are."""
    for encoder in (model.encoder, model.momentum_encoder):
        encoder.compile(disable=True)


def try_passes(model: DensePretraining, images: int, side: int, amp_dtype: torch.dtype | None) -> None:
    """The passes of a step on blank images: both encoders forward, the online one backward."""
    weight = next(model.parameters())
    blank = torch.zeros(images, 3, side, side, device=weight.device, dtype=weight.dtype)
    blank = blank.to(memory_format=torch.channels_last)
    with torch.autocast(blank.device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        with torch.no_grad():
            model.momentum_encoder(blank)
        total = sum(cells.float().sum() for cells in maps(model.encoder(blank)))
    total.backward()


def maps(embedding: Embedding) -> list[Tensor]:
    """All projected maps of an encoder."""
    return [*embedding.maps, *([] if embedding.instance is None else [embedding.instance])]
