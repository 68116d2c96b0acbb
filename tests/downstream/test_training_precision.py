"""--amp of the fine-tuning programs: half precision trains alike, and resuming is exact."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from downstream import segment
from downstream.common.precision import Frozen, autocast, loss_scaler
from downstream.common.program import resumable
from downstream.common.training import Learner, resume, save, training_steps
from downstream.segmentation.net import FCN
from pixpro.checkpoints import checkpoint
from pixpro.errors import UserError
from tests.helpers import c4_case
from tests.helpers.downstream_programs import call, interrupted_in_step, refusal, state
from tests.helpers.line_training import ALONE, CPU, Line, rows, settings

SMALL = "--arch resnet18 --batch-size 2 --scale 0.000016 --crop 48 --num-classes 9 --workers 0 --log-every 1"
SMALL += " --pictures 1 --train-split trainval --test-split test --weights none --amp bf16"  # 4 iterations


def losses_of(model: nn.Module, batch: Callable[[], tuple], amp: str, scaler=None, steps: int = 3) -> Tensor:
    """Losses (steps, number of them) of SGD steps, the total first."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    taken = training_steps(
        Learner(model.train(), optimizer, scaler or loss_scaler("off", CPU)),
        iter(batch, None),
        learning_rate=lambda step: 0.01,
        steps=range(steps),
        seed=0,
        amp=amp,
        process=ALONE,
    )
    return torch.stack([torch.stack(list(losses.values())) for _, losses in taken])


def small_fcn() -> FCN:
    torch.manual_seed(0)
    return FCN(resnet18(), 5)


def crops() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    draw = torch.Generator().manual_seed(2)
    images = list(torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8, generator=draw))
    masks = torch.randint(0, 5, (2, 48, 48), dtype=torch.uint8, generator=draw)
    return images, [{"mask": mask} for mask in masks]


def test_bf16_trains_a_segmentation_network_as_float32_does():
    full, half = (losses_of(small_fcn(), crops, amp) for amp in ("off", "bf16"))
    assert not torch.equal(full, half) and full[2, 0] < full[0, 0]
    torch.testing.assert_close(half, full, rtol=0.02, atol=0)


@pytest.mark.soak  # a minute where the CPU emulates bf16
def test_bf16_trains_a_detector_as_float32_does_with_boxes_in_float32():
    batch = c4_case.make_images(), c4_case.make_targets()
    full, half = (losses_of(c4_case.make_detector(0.05), lambda: batch, amp, steps=2) for amp in ("off", "bf16"))
    assert not torch.equal(full, half)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.01)
    model = c4_case.make_detector(0.5).eval()
    with torch.no_grad(), autocast("bf16", CPU):
        found = model(batch[0])
    assert all(result["boxes"].dtype == result["scores"].dtype == torch.float32 for result in found)


def test_boxes_far_from_the_corner_are_not_rounded_in_bf16():
    model = c4_case.make_detector(0.5).eval()
    nn.init.zeros_(model.rpn.head.bbox_pred.weight)
    nn.init.zeros_(model.rpn.head.bbox_pred.bias)
    features = {"res4": torch.zeros(1, 1024, 1, 66)}  # anchors up to 1040 px from the left, where bf16 has every 8th
    batch = model.normalized([torch.zeros(3, 16, 1056)])
    model.rpn._pre_nms_top_n["testing"], model.rpn._post_nms_top_n["testing"] = 990, 990
    with torch.no_grad():
        (full,), _ = model.rpn(batch, features)
        with autocast("bf16", CPU):
            (half,), _ = model.rpn(batch, features)
    assert full[:, 0].max() > 1000 and torch.equal(full, half)


def test_scaling_the_loss_changes_no_bit_and_a_step_that_overflows_is_left_out():
    batch = next(rows())
    plain = losses_of(Line(), lambda: batch, "off")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    assert torch.equal(losses_of(Line(), lambda: batch, "off", scaler), plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=float(torch.finfo(torch.float32).max))
    model = Line()
    before = model.layer.weight.detach().clone()
    losses_of(model, lambda: ([image * 1e3 for image in batch[0]], batch[1]), "off", scaler, steps=1)
    assert torch.equal(model.layer.weight, before) and scaler.get_scale() < 2.0**127


def test_the_scale_of_the_loss_goes_on_after_a_resume(tmp_path: Path):
    net, (first, second) = Line(), (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (32.0, 1024.0))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses_of(net, lambda: next(rows()), "off", first)
    save(settings(tmp_path), Learner(net, optimizer, first), 3, ALONE)
    assert resume(settings(tmp_path, resume="auto"), Learner(net, optimizer, second)) == 3
    assert second.get_scale() == 32.0 and second.state_dict() == first.state_dict()


def test_a_checkpoint_from_before_the_option_goes_on_in_float32_alone(tmp_path: Path):
    args = settings(tmp_path)
    before = {name: value for name, value in vars(args).items() if name != "amp"}
    path = tmp_path / "old.pth.tar"
    checkpoint.save(path, {"model": {}, "optimizer": {}, "step": 1, "config": before | {"output_dir": str(tmp_path)}})
    assert resumable(path, args)["step"] == 1
    with pytest.raises(UserError, match="made with --amp off, this run has bf16"):
        resumable(path, settings(tmp_path, amp="bf16"))


@pytest.mark.soak  # likewise
def test_an_interrupted_run_in_bf16_resumes_to_the_same_bits_in_bf16_alone(scenes: Path, tmp_path: Path, capsys):
    program = partial(call, segment, "--data", scenes, *SMALL.split(), "--output-dir")
    assert program(tmp_path / "whole") == 0
    with interrupted_in_step(3):
        program(tmp_path / "parts", "--save-every", 2)
    line = refusal(capsys, program, tmp_path / "parts", "--resume", "auto", "--amp", "off")
    assert "was made with --amp bf16, this run has off" in line
    assert program(tmp_path / "parts", "--resume", "auto") == 0
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert whole["config"]["amp"] == parts["config"]["amp"] == "bf16"
    assert all(torch.equal(whole["model"][name], parts["model"][name]) for name in whole["model"] | parts["model"])


def test_a_frozen_network_answers_in_float32():
    torch.manual_seed(0)
    network, images = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        plain = network(images)
        assert torch.equal(Frozen(network, "off", CPU)(images), plain)
        half = Frozen(network, "bf16", CPU)(images)
    assert half.dtype == torch.float32 and not torch.equal(half, plain)
    torch.testing.assert_close(half, plain, atol=0.03, rtol=0)
