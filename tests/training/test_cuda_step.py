"""A step on a GPU, traced without one: nothing is copied from the host, nothing is waited for but one number."""

from functools import cache

import pytest
import torch
from torch import Tensor

from pixpro import PixContrast, PixPro
from pixpro.data import Batch, augment
from pixpro.data.views import View
from pixpro.training import engine
from pixpro.training.engine import Trainer
from pixpro.training.optim import make_optimizer
from pixpro.training.sync_batchnorm import BatchNorm
from tests.helpers.fake_cuda import CUDA, Record, fake_cuda, on_fake_cuda, walk_back

IMAGES, SIDE = 128, 224
MODELS = {
    "pixpro": lambda: PixPro("resnet50"),
    "pixcontrast": lambda: PixContrast("resnet50"),
    "instance": lambda: PixPro("resnet50", instance_weight=1.0),
    "fpn": lambda: PixPro("resnet50", neck="fpn"),
}
# Kernels and GB of a step in bf16, colours apart: what was counted when this was written, and a twentieth more.
LIMITS = {
    "pixpro": (1934, 164.9),
    "pixcontrast": (1886, 163.9),
    "instance": (2103, 170.9),
    "fpn": (4376, 355.2),
}


def fake_batch() -> Batch:
    """Two views of each image and their colours, on the device, as `prefetch` hands them over."""
    views = []
    for _ in range(2):
        pixels = torch.empty(IMAGES, SIDE, SIDE, 3, dtype=torch.uint8, device=CUDA).permute(0, 3, 1, 2)
        views.append(View(pixels, torch.empty(IMAGES, 4, device=CUDA)))
    colours = [torch.empty(IMAGES, 8, device=CUDA) for _ in range(2)]
    return Batch(*views, *colours, torch.arange(IMAGES), torch.zeros(IMAGES, dtype=torch.bool))


def coloured(pixels: Tensor, colour: Tensor) -> Tensor:
    """What `augment` gives, for nothing."""
    return torch.empty(pixels.shape, device=pixels.device, memory_format=torch.channels_last)


@cache
def traced(case: str, amp_dtype: torch.dtype = torch.bfloat16) -> Record:
    """The record of the second step: the first one makes the optimizer's buffers."""
    with torch.device("meta"):
        model = MODELS[case]()
    with fake_cuda(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "augment", coloured)
        model = BatchNorm.convert(on_fake_cuda(model))
        trainer = Trainer(
            model,
            make_optimizer("lars", model, lr=1.0, momentum=0.9, weight_decay=1e-5),
            device=CUDA,
            lr_at=lambda step: 1.0,
            momentum_at=lambda step: 0.99,
            amp_dtype=amp_dtype,
        )
        trainer.join_counters()
        batch = fake_batch()
        for _ in range(2):
            with Record() as record:
                trainer.step([batch], 0)
    return record


@pytest.mark.parametrize("case", MODELS)
def test_the_host_waits_once_and_sends_nothing(case):
    record = traced(case)
    assert record.host_copies == []
    assert len(record.waits) == 1 and "_local_scalar_dense at nonfinite.py" in record.waits[0]


def test_the_scale_of_fp16_adds_no_wait():
    record = traced("pixpro", torch.float16)
    assert record.host_copies == []
    assert len(record.waits) == 1 and "_local_scalar_dense at nonfinite.py" in record.waits[0]
    assert record.launches["_amp_update_scale_"] == 1


@pytest.mark.parametrize("case", MODELS)
def test_kernels_and_bytes_stay_within_their_limits(case):
    record, (kernels, gigabytes) = traced(case), LIMITS[case]
    counted = sum(record.launches.values())
    assert counted <= kernels, record.launches.most_common(12)
    assert record.gigabytes <= gigabytes, record.bytes.most_common(12)
    assert counted > 0.8 * kernels and record.gigabytes > 0.8 * gigabytes, "lower the limits: the step takes less now"


def test_the_convolutions_move_the_bytes_that_their_shapes_say():
    """Bytes of the first convolution in bf16, by hand: images, weights, map; four passes forward."""
    with fake_cuda(), Record() as record:
        images = torch.empty(IMAGES, 3, SIDE, SIDE, device=CUDA, dtype=torch.bfloat16)
        weight = torch.empty(64, 3, 7, 7, device=CUDA, dtype=torch.bfloat16)
        torch.nn.functional.conv2d(images, weight, stride=2, padding=3)
    by_hand = 2 * (IMAGES * 3 * SIDE**2 + 64 * 3 * 49 + IMAGES * 64 * (SIDE // 2) ** 2)
    assert record.bytes["convolution"] == by_hand and record.launches["convolution"] == 1


def test_colours_send_nothing_and_wait_for_nothing(monkeypatch):
    """In the form that is compiled for a GPU: of fixed shapes, whatever is drawn."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with fake_cuda():
        batch = fake_batch()
        with Record() as record:
            augment.chain(batch.view1.pixels, batch.colour1)
    assert record.host_copies == [] and record.waits == []
    assert sum(record.launches.values()) > 100


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (lambda x: x.new_tensor([1.0, 2.0]), "copy"),
        (lambda x: x + torch.ones(4).to(CUDA), "copy"),
        (lambda x: x[torch.arange(2)], "copy"),
        (lambda x: x.nonzero(), "wait"),
        (lambda x: x[x > 0], "wait"),
        (lambda x: x.sum().item(), "wait"),
        (lambda x: x.cpu(), "wait"),
    ],
)
def test_what_is_looked_for_would_be_found(what, found):
    with fake_cuda():
        given = torch.empty(4, device=CUDA)
        with Record() as record:
            try:
                what(given)
            except torch._subclasses.fake_tensor.DynamicOutputShapeException:
                record.waits.append("a shape that depends on numbers")
    assert record.host_copies if found == "copy" else record.waits


def test_walking_back_by_hand_gives_autograd_s_gradients():
    torch.manual_seed(0)
    inputs, one, other = torch.randn(5, 3), torch.nn.Linear(3, 4), torch.nn.Linear(4, 4)

    def loss() -> Tensor:
        hidden = one(inputs).relu()
        first, second = (other(hidden) + hidden).split(2, dim=1)
        return (first * second).sum() + hidden.square().mean()

    loss().backward()
    expected = [parameter.grad.clone() for parameter in (*one.parameters(), *other.parameters())]
    one.zero_grad(), other.zero_grad()
    walk_back(loss())
    for parameter, gradient in zip((*one.parameters(), *other.parameters()), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
