"""Both views in one pass through the encoders, with BatchNorm statistics of each, are the two passes of today."""

import copy

import pytest
import torch
import torchvision
from torch import nn

import train
from pixpro import PixContrast, PixPro
from pixpro.data.views import View
from pixpro.method.encoder import Encoder
from pixpro.training.compiling import compile_encoders
from pixpro.training.sync_batchnorm import BatchCounters, BatchNorm, join_views, joined_uncompiled
from tests.helpers.pictures import folder
from tests.helpers.runs import TinyTrunk, arguments
from tests.helpers.small_runs import shrink

SIZES = {"hidden_dim": 16, "dim": 64}
MODELS = {
    "pixpro": lambda: shrink(PixPro("resnet18", **SIZES)),
    "pixcontrast": lambda: shrink(PixContrast("resnet18", **SIZES)),
    "residual blocks": lambda: PixPro("resnet18", hidden_dim=16, dim=8),
    "pyramid": lambda: PixPro("resnet18", hidden_dim=16, dim=8, neck="fpn", levels=(4, 5)),
    "instance": lambda: PixPro("resnet18", hidden_dim=16, dim=8, instance_weight=1.0, instance_loss="contrast"),
}


def views(images: int = 3, side: int = 64, dtype: torch.dtype = torch.float64) -> list[View]:
    """Two different views of each image, with means and spreads of their own."""
    pixels = torch.randn(2, images, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=dtype)
    pixels[1] = 2 * pixels[1] + 1
    boxes = torch.tensor([[0.0, 0.0, 0.8, 0.8], [0.2, 0.2, 1.0, 1.0]])
    wide = torch.channels_last
    return [View(x.to(memory_format=wide), box.expand(images, 4)) for x, box in zip(pixels, boxes, strict=True)]


def numbers(model: nn.Module, *pair: View) -> dict[str, torch.Tensor]:
    """Loss, gradients and buffers of two steps forward and backward."""
    for _ in range(2):
        loss = model(*pair)
        loss.backward()
    gradients = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **dict(model.named_buffers())}


def pair_of_models(case: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    """torch's BatchNorm in two passes, and ours in one."""
    torch.manual_seed(0)
    apart = MODELS[case]().to(dtype, memory_format=torch.channels_last)
    together = BatchNorm.convert(copy.deepcopy(apart))
    join_views(together)
    return apart, together


@pytest.mark.parametrize("case", MODELS)
def test_losses_gradients_and_statistics_are_those_of_two_passes(case):
    apart, together = pair_of_models(case)
    passed = []
    together.encoder.register_forward_hook(lambda module, images, out: passed.append(len(images[0])))
    found, expected = numbers(together, *views()), numbers(apart, *views())
    if case == "pyramid":  # its levels share the projector, whose running statistics take the views in another order
        shared = {name for name in expected if "projector" in name and "running" in name}
        assert shared
        found, expected = ({n: value for n, value in of.items() if n not in shared} for of in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert passed == [6, 6]


def test_in_half_precision_they_are_the_same_up_to_its_rounding():
    apart, together = pair_of_models("pixpro", torch.float32)
    pair = views(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = numbers(together, *pair), numbers(apart, *pair)
    for name in ("loss", "encoder.bn1.running_mean", "encoder.bn1.running_var"):
        torch.testing.assert_close(found[name], expected[name], rtol=0.02, atol=0.02)
    name = "grad encoder.layer4.0.weight"
    assert torch.cosine_similarity(found[name].flatten(), expected[name].flatten(), dim=0) > 0.99


def test_the_form_for_compilers_gives_the_same_numbers():
    apart, together = pair_of_models("pixpro")
    try:
        assert compile_encoders(together, 3, 64, backend="aot_eager") == ""
        torch.testing.assert_close(numbers(together, *views()), numbers(apart, *views()), rtol=1e-9, atol=1e-11)
    finally:
        torch._dynamo.reset()


def test_counters_kept_for_all_layers_at_once_count_as_each_layer_would():
    torch.manual_seed(0)
    plain = PixPro("resnet18", hidden_dim=16, dim=8, neck="fpn", levels=(4, 5), instance_weight=1.0)
    model = BatchNorm.convert(copy.deepcopy(plain))
    counters = BatchCounters((model.encoder, model.momentum_encoder))
    pair = views(dtype=torch.float32)
    for _ in range(2):
        plain(*pair), model(*pair)
        counters.add(2)
    counted = [{n: b.item() for n, b in each.named_buffers() if n.endswith("tracked")} for each in (model, plain)]
    assert counted[0] == counted[1] and len(set(counted[0].values())) >= 3  # none, once and twice per view


class NormAndActivation(nn.BatchNorm2d):
    """As timm has it: a BatchNorm that ends in other layers."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(features)))


def test_a_batchnorm_that_ends_in_an_activation_keeps_it():
    plain = nn.Sequential(NormAndActivation(4), nn.BatchNorm2d(4))
    ours = BatchNorm.convert(copy.deepcopy(plain))
    features = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    assert [type(module) for module in ours] == [BatchNorm, BatchNorm]
    assert torch.equal(ours(features), plain(features)) and ours.state_dict().keys() == plain.state_dict().keys()
    assert (ours[0](features) >= 0).all() and (ours[1](features) < 0).any()


def test_small_batches_alone_pass_as_one_on_a_cpu_and_none_on_a_gpu():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert joined_uncompiled(cpu, 16, 64) and joined_uncompiled(cpu, 8, 112)
    assert not joined_uncompiled(cpu, 32, 112) and not joined_uncompiled(cpu, 8, 224)
    assert not joined_uncompiled(gpu, 16, 64)


@pytest.mark.parametrize(("side", "passed"), [("64", [8, 8]), ("288", [4, 4, 4, 4])])
def test_a_run_takes_the_way_of_its_size(monkeypatch, tmp_path, side, passed):
    seen = []
    monkeypatch.setattr(torchvision.models, "get_model", lambda *args, **options: TinyTrunk())
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, x: (seen.append(len(x)), forward(self, x))[1])
    argv = arguments(folder(tmp_path / "images", 4), tmp_path / "run", "--epochs", "1", "--image_size", side)
    assert train.main(argv) == 0
    assert seen[-len(passed) :] == passed
