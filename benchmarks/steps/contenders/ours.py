"""The project's own step: what `train.py` runs once the colours of a batch are computed."""

from functools import partial

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.compile_fx import compile_fx

from benchmarks.steps.contenders.case import LR, MOMENTUM, WEIGHT_DECAY, Case, Contestant
from pixpro.data.views import View
from pixpro.method.model import PixPro
from pixpro.training.compiling import compile_encoders
from pixpro.training.engine import Trainer
from pixpro.training.optim import make_optimizer
from pixpro.training.sync_batchnorm import BatchNorm, join_views, joined_uncompiled


class ColouredTrainer(Trainer):
    """The trainer on batches whose colours are computed already: (view 1, view 2)."""

    def loss(self, batch: tuple[View, View]) -> Tensor:
        with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            return self.model(*batch)


def build(case: Case, *, compiled: bool = False, together: bool | None = None, graphs: bool = False) -> Contestant:
    """PixPro under `Trainer.step`: channels last, LARS, the check for finite gradients, the momentum update.

    compiled: the encoders. together: both views in one pass through them; None: as train.py has it without --compile.
    graphs: what is compiled is replayed as CUDA graphs.
    """
    if together is None:
        together = joined_uncompiled(case.device, len(case.view1.box), case.view1.pixels.shape[-1])
    model = PixPro(case.arch, hidden_dim=case.hidden_dim, dim=case.dim)
    model = BatchNorm.convert(model.to(case.device, memory_format=torch.channels_last))
    join_views(model, together)
    if compiled:
        images, side = case.view1.pixels.shape[::3]
        backend = partial(compile_fx, config_patches={"triton.cudagraphs": True}) if graphs else "inductor"
        reason = compile_encoders(model, images, side, amp_dtype=case.amp_dtype, backend=backend)
        if reason:
            raise TorchDynamoException(reason)
    trainer = ColouredTrainer(
        model,
        make_optimizer("lars", model, lr=LR, momentum=0.9, weight_decay=WEIGHT_DECAY),
        device=case.device,
        lr_at=lambda step: LR,
        momentum_at=lambda step: MOMENTUM,
        amp_dtype=case.amp_dtype,
    )
    trainer.join_counters()
    batch = case.views(torch.channels_last)

    def run() -> Tensor:
        loss, bad = trainer.step([batch], 0)
        # A skipped step is shorter; no step may be, but while fp16 looks for its scale.
        assert not bad, "the gradients are not finite"
        return loss

    return Contestant(model, run)
