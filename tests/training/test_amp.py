"""Which precision a run computes in, and that half precision trains."""

import pytest
import torch

from benchmarks.steps.contenders import make_case, ours
from pixpro import PixPro
from pixpro.config import parse_args
from pixpro.training.engine import Trainer
from pixpro.training.half_precision import amp_dtype, emulation
from tests.helpers.small_runs import shrink

CPU = torch.device("cpu")


@pytest.mark.parametrize(("instructions", "expected"), [(True, torch.bfloat16), (False, None)])
def test_on_a_cpu_auto_is_bf16_where_there_are_instructions_for_it(monkeypatch, instructions, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    assert amp_dtype("auto", CPU) is expected


@pytest.mark.parametrize(("setting", "expected"), [("off", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_precision_that_is_asked_for_is_used(setting, expected):
    assert amp_dtype(setting, CPU) is expected


def test_the_demo_has_the_same_precision_on_all_machines_unless_asked():
    assert parse_args(["--demo"]).amp == "off" and parse_args(["--demo", "--loss", "pixpro"]).amp == "off"
    assert parse_args(["--demo", "--amp", "bf16"]).amp == "bf16"
    assert parse_args(["--data", "photos"]).amp == "auto"


def test_auto_is_what_all_processes_compute(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert amp_dtype("auto", CPU, bf16=False) is None and amp_dtype("auto", CPU, bf16=True) is torch.bfloat16
    assert amp_dtype("auto", torch.device("cuda"), bf16=False) is torch.float16


@pytest.mark.parametrize("instructions", [True, False])
def test_a_precision_that_the_cpu_emulates_is_named(monkeypatch, instructions):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    assert ("--amp bf16: this CPU has no instructions for it" in emulation(torch.bfloat16, CPU)) is not instructions
    assert emulation(None, CPU) == ""


@pytest.mark.parametrize("before", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("after", [None, torch.bfloat16, torch.float16])
def test_the_state_of_any_precision_goes_on_in_any_other(before, after):
    first, second = (scaled_trainer(dtype, scale) for dtype, scale in ((before, 64.0), (after, 512.0)))
    second.load_state(first.state())
    if after is torch.float16:
        assert second.scaler.get_scale() == (64.0 if before is torch.float16 else 512.0)


def scaled_trainer(dtype: torch.dtype | None, scale: float) -> Trainer:
    """A trainer in some precision, whose loss scale starts at a value."""
    model = shrink(PixPro("resnet18", hidden_dim=8, dim=8))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, optimizer, device=CPU, lr_at=float, momentum_at=float, amp_dtype=dtype)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=dtype is torch.float16)
    return trainer


def test_a_step_in_bf16_is_the_float32_step_up_to_its_rounding():
    shape = {"batch_size": 4, "image_size": 64, "hidden_dim": 16, "dim": 8, "device": CPU}
    losses, moved = [], []
    for dtype in (None, torch.bfloat16):
        torch.manual_seed(0)
        contestant = ours.build(make_case("resnet18", amp_dtype=dtype, **shape))
        weight = contestant.model.encoder.conv1.weight
        start = weight.detach().clone()
        losses.append(contestant.run())
        moved.append((weight.detach() - start).flatten())
        assert weight.dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0.02)
    assert losses[0] != losses[1]
    assert torch.cosine_similarity(*moved, dim=0) > 0.9
