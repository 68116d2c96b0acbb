"""Compiled encoders compute what they computed before; one that cannot be compiled stays as it is."""

import shutil

import pytest
import torch
import torch.distributed as dist
import torchvision
from torch.testing._internal.distributed.fake_pg import FakeStore

import train
from pixpro.data.views import View
from pixpro.method.model import PixContrast, PixPro
from pixpro.training.compiling import compile_encoders
from pixpro.training.sync_batchnorm import BatchNorm
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


@pytest.fixture
def two_processes_of_which_one_is_here():
    """A process group whose exchanges give back what they are given: enough to trace, not to compute."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


def test_with_synchronised_batchnorm_each_encoder_is_one_graph(two_processes_of_which_one_is_here):
    model = BatchNorm.convert(small_model(), processes=2)
    view, _ = views()
    graphs = []
    for encoder in (model.encoder, model.momentum_encoder):
        told = torch._dynamo.explain(encoder)(view.pixels)
        assert told.graph_break_count == 0, told.break_reasons
        graphs += told.graphs
    exchanges = [node for graph in graphs for node in graph.graph.nodes if "all_gather" in str(node.target)]
    assert len(graphs) == 2 and len(exchanges) >= 2 * 6  # six layers are synchronised in each


def test_synchronised_encoders_compile_once_and_for_all(two_processes_of_which_one_is_here):
    model = BatchNorm.convert(small_model(), processes=2)
    assert compile_encoders(model, IMAGES, SIDE, backend="aot_eager") == ""
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert all(torch.isfinite(found).all() for found in loss_and_gradients(model))


def test_an_encoder_of_several_graphs_runs_as_before_and_the_reason_is_told():
    class Fragmented(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            return features

    plain, model = small_model(), small_model()
    for each in (plain, model):
        each.encoder.relu = Fragmented()
    reason = compile_encoders(model, IMAGES, SIDE, backend="aot_eager")
    assert "graph_break" in reason and "\n" not in reason
    torch.testing.assert_close(loss_and_gradients(model), loss_and_gradients(plain), rtol=0, atol=0)


def test_what_fails_in_another_process_is_not_compiled_here_either():
    plain, model = small_model(), small_model()
    stages = []

    def elsewhere(stage: str, reason: str) -> str:
        stages.append((stage, reason))
        return "no compiler in process 1"

    assert compile_encoders(model, IMAGES, SIDE, backend="eager", agree=elsewhere) == "no compiler in process 1"
    assert stages == [("compiler", "")]
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
