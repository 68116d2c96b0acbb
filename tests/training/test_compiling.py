"""Compiled encoders compute what they computed before; one that cannot be compiled stays as it is."""

import shutil

import pytest
import torch
import torchvision

import train
from pixpro.data.views import View
from pixpro.method.model import PixContrast, PixPro
from pixpro.training.compiling import compile_encoders
from tests.helpers.pictures import folder
from tests.helpers.runs import TinyTrunk, arguments
from tests.helpers.small_runs import shrink

IMAGES, SIDE = 3, 32


def small_model(method: type = PixPro, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    return shrink(method("resnet18", hidden_dim=16, dim=64, **options)).to(memory_format=torch.channels_last)


def views() -> list[View]:
    """Two different views of each image, half of which they share."""
    pixels = torch.randn(2, IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[0.0, 0.0, 0.8, 0.8], [0.2, 0.2, 1.0, 1.0]])
    return [
        View(each.to(memory_format=torch.channels_last), box.expand(IMAGES, 4))
        for each, box in zip(pixels, boxes, strict=True)
    ]


def loss_and_gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss = model(*views())
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.fixture(autouse=True)
def no_compiled_code_is_left():
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("method", [PixPro, PixContrast])
def test_loss_gradients_and_statistics_are_those_of_the_uncompiled_encoders(method):
    plain, compiled = small_model(method), small_model(method)
    assert compile_encoders(compiled, IMAGES, SIDE, backend="aot_eager") == ""
    with torch._dynamo.config.patch(error_on_recompile=True):  # the trial had the shapes of a step
        torch.testing.assert_close(loss_and_gradients(compiled), loss_and_gradients(plain), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dict(compiled.named_buffers()), dict(plain.named_buffers()), rtol=1e-5, atol=1e-6)


def test_compiling_changes_neither_the_state_nor_the_random_numbers():
    model, generator = small_model(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compile_encoders(model, IMAGES, SIDE, backend="aot_eager")
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in model.parameters())


def test_where_the_compiler_fails_the_encoders_run_as_before():
    def broken(graph: torch.fx.GraphModule, example: list) -> None:
        raise RuntimeError("no compiler\nfound here")

    plain, model = small_model(), small_model()
    reason = compile_encoders(model, IMAGES, SIDE, backend=broken)
    assert "no compiler found here" in reason and "\n" not in reason
    torch.testing.assert_close(loss_and_gradients(model), loss_and_gradients(plain), rtol=0, atol=0)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler for the CPU")
def test_a_run_with_compile_says_so_and_trains_like_one_without(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torchvision.models, "get_model", lambda *args, **options: TinyTrunk())
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    images = folder(tmp_path / "images", 16)
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        assert train.main(arguments(images, tmp_path / name, "--log_every", "100", *more)) == 0
    said = capsys.readouterr()
    assert "compiled in" in said.out
    weights = [torch.load(tmp_path / name / "last.pth.tar")["model"] for name in ("plain", "compiled")]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
