"""The fine-tuning loop reads numbers in reported steps alone, and ends a run whose loss or its scale is lost."""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet18

from downstream.common.precision import loss_scaler
from downstream.common.training import Finite, Learner, train, training_steps
from downstream.segmentation.net import FCN
from pixpro.checkpoints import checkpoint
from pixpro.errors import UserError
from pixpro.training.processes import Process
from tests.helpers.fake_cuda import CUDA, Record, fake_cuda, on_fake_cuda
from tests.helpers.line_training import ALONE, CPU, Line, rows, settings


class Reads(TorchDispatchMode):
    """Counts, for each step, the numbers that were read out of tensors."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.step, self.found, listed = 0, Counter(), Tensor.tolist

        def tolist(tensor: Tensor) -> list:
            self.found[self.step] += 1
            return listed(tensor)

        patch.setattr(Tensor, "tolist", tolist)  # which on a CPU goes past the dispatcher

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found[self.step] += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))

    def following(self, batches: Iterator) -> Iterator:
        for batch in batches:
            self.step += 1
            yield batch


def fine_tune(args: argparse.Namespace, model: nn.Module, batches: Iterator, last: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    learner = Learner(model, optimizer, loss_scaler(args.amp, CPU))
    train(args, learner, batches, learning_rate=lambda step: 0.1, steps=range(last), process=ALONE)


def test_numbers_are_read_in_reported_steps_alone(tmp_path: Path, monkeypatch):
    with Reads(monkeypatch) as reads:
        fine_tune(settings(tmp_path), Line(), reads.following(rows()), last=7)
    assert {step for step, count in reads.found.items() if count} == {3, 6, 7}


def test_a_step_on_a_gpu_waits_for_nothing():
    with torch.device("meta"):
        model = FCN(resnet18(), 5)
    with fake_cuda():
        model = on_fake_cuda(model)
        image = torch.empty(3, 64, 64, dtype=torch.uint8, device=CUDA)
        batch = [image] * 2, [{"mask": torch.empty(64, 64, dtype=torch.uint8, device=CUDA)}] * 2
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        settled = dict(learning_rate=lambda step: 0.1, steps=range(3), seed=0, amp="bf16")
        process, finite = Process(0, 1, 1, CUDA), Finite(CUDA)
        learner = Learner(model, optimizer, torch.amp.GradScaler("cuda", enabled=False))
        with Record() as record:
            for step, losses in training_steps(learner, iter([batch] * 3), **settled, process=process):
                finite.note(step, losses["loss"])
    assert record.launches["convolution"] > 60
    assert (record.waits, record.host_copies) == ([], [])


def test_a_loss_that_is_not_finite_is_named_at_the_next_report(tmp_path: Path):
    with pytest.raises(UserError, match="the loss of iteration 4 is nan"):
        fine_tune(settings(tmp_path), Line(), rows(bad=4), last=9)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_weights_of_a_diverged_run_are_not_saved(tmp_path: Path):
    with pytest.raises(UserError, match="the loss of iteration 3 is nan"):
        fine_tune(settings(tmp_path, log_every=100, save_every=2), Line(), rows(bad=3), last=9)
    assert checkpoint.load(tmp_path / checkpoint.LAST)["step"] == 2


def test_a_scale_that_sank_to_nothing_ends_the_run(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(globals(), "loss_scaler", lambda amp, device: torch.amp.GradScaler("cpu", init_scale=0.5))
    with pytest.raises(UserError, match="beyond fp16's range"):
        fine_tune(settings(tmp_path), Line(), rows(), last=3)
