"""The encoders' forward and backward passes as code that torch.compile makes for their shapes and this machine."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch._dynamo.backends.registry import lookup_backend

from pixpro.method.encoder import Embedding, Encoder
from pixpro.method.model import Both, DensePretraining
from pixpro.training.engine import Trainer
from pixpro.training.nonfinite import Buffers
from pixpro.training.processes import Process
from pixpro.training.sync_batchnorm import join_views, joined_uncompiled

Agree = Callable[[str, str], str]  # (name of a stage, why it failed here or "") -> why it failed anywhere, or ""


def compile_for(trainer: Trainer, process: Process, images: int, side: int) -> None:
    """Compile a trainer's encoders for micro-batches of so many images, both views at once; says what came of it.

    When it fails in one process, all run uncompiled: their numbers would differ in rounding, their speed in more.
    """
    if process.is_main:
        print("compiling the encoders, which can take minutes", flush=True)
    started = time.perf_counter()

    def agree(stage: str, reason: str) -> str:
        with process.together(f"compiling the encoders ({stage})", note=reason) as heard:
            pass
        process.at("trying the compiled encoders")
        return next(filter(None, heard.notes), "")

    process.at("compiling the encoders", alone=True)
    join_views(trainer.core)
    reason = compile_encoders(trainer.core, images, side, amp_dtype=trainer.amp_dtype, agree=agree)
    if reason:
        join_views(trainer.core, joined_uncompiled(trainer.device, images, side))
    if process.is_main:
        done = f"compiled in {time.perf_counter() - started:.0f} s"
        print(f"encoders run uncompiled, which is slower and equally right: {reason}" if reason else done, flush=True)


def compile_encoders(
    model: DensePretraining,
    images: int,
    side: int,
    *,
    amp_dtype: torch.dtype | None = None,
    backend: str | Callable = "inductor",
    agree: Agree = lambda stage, reason: reason,
) -> str:
    """Compile both encoders, now, for views (images, 3, side, side); "" or, if that fails, why they stay as they are.

    The numbers are those of uncompiled encoders up to rounding. Nothing else of the model changes: trial passes with
    blank images make the compiler work, their gradients and statistics are dropped. An encoder that would fall into
    several graphs, or be compiled more than once, counts as a failure. With several processes all of them call this,
    and all compile or none: no pass that communicates starts before all have said that they can. Takes minutes, less
    where the compiler's cache is warm.
    """
    encoders = (model.encoder, model.momentum_encoder)
    held = Held(backend)

    def trial() -> None:
        with torch._dynamo.config.patch(error_on_recompile=True):
            for _ in range(2):
                try_passes(model, images, side, amp_dtype)

    buffers = Buffers(model.buffers())
    buffers.remember()
    try:
        for encoder in encoders:
            encoder.compile(backend=held, dynamic=False, fullgraph=True)
        reason = agree("compiler", attempt(lambda: held.compile_only(forward_passes(model, images, side, amp_dtype))))
        reason = reason or agree("trial", attempt(trial))
        if reason:
            for encoder in encoders:
                encoder.compile(disable=True)
    finally:
        buffers.restore()
        model.zero_grad(set_to_none=True)
    return reason


def attempt(action: Callable[[], object]) -> str:
    """Do it; why it cannot be done, in one line, or nothing."""
    try:
        action()
    except Exception as error:  # the compiler's own, or that of any tool that it calls
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


class Compiled(Exception):
    """What stops a pass when its code is ready and before it runs."""


class Held:
    """A compiler's backend whose code does not run while it is held back: so that nothing communicates."""

    def __init__(self, backend: str | Callable) -> None:
        self.backend = lookup_backend(backend) if isinstance(backend, str) else backend
        self.holding = False

    def __call__(self, graph: torch.fx.GraphModule, inputs: list) -> Callable[..., Any]:
        code = self.backend(graph, inputs)

        def run(*args: Any) -> Any:
            if self.holding:
                raise Compiled
            return code(*args)

        return run

    def compile_only(self, passes: list[Callable[[], Any]]) -> None:
        """Compile what these passes need, without one of them."""
        self.holding = True
        try:
            for one in passes:
                try:
                    one()
                except Compiled:
                    continue
        finally:
            self.holding = False


def forward_passes(
    model: DensePretraining, images: int, side: int, amp_dtype: torch.dtype | None
) -> list[Callable[[], Both[Embedding]]]:
    """The forward passes of a step on so many blank images, to be called: of the online encoder, of the other one."""
    weight = next(model.parameters())
    blank = torch.zeros(images, 3, side, side, device=weight.device, dtype=weight.dtype)
    blank = blank.to(memory_format=torch.channels_last)

    def run(encoder: Encoder, with_graph: bool) -> Both[Embedding]:
        autocast = torch.autocast(blank.device.type, dtype=amp_dtype, enabled=amp_dtype is not None)
        with torch.set_grad_enabled(with_graph), autocast:
            return model.embed(encoder, blank, blank)

    return [partial(run, model.encoder, True), partial(run, model.momentum_encoder, False)]


def try_passes(model: DensePretraining, images: int, side: int, amp_dtype: torch.dtype | None) -> None:
    """The passes of a step on so many blank images: both encoders forward, the online one backward."""
    embeddings, _ = [one() for one in forward_passes(model, images, side, amp_dtype)]
    maps = [level for view in embeddings for level in (*view.maps, view.instance) if level is not None]
    cast(Tensor, sum(level.float().sum() for level in maps)).backward()  # there is a map
