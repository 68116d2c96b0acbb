"""What Inductor makes of the encoders for an H100 that is not there: kernels, and the GB that they move in a step.

    python benchmarks/gpu/kernels.py --arch resnet50 --images 128 --image_size 224

The passes of a step in bf16 are traced with fake tensors, their graphs are moved to CUDA, and Inductor lowers, fuses
and schedules them. Nothing is compiled or run. Bytes are those that each kernel reads and writes, as if nothing stayed
in a cache. All this goes through private interfaces of torch 2.14: another version ends in an error of its own.
"""

import argparse
import copy
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from functorch.compile import make_boxed_func
from tabulate import tabulate
from torch import Tensor, nn
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import config, scheduler
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

sys.path.insert(0, str(Path(__file__).parents[2]))

from pixpro import PixPro
from pixpro.training.sync_batchnorm import BatchNorm, join_views

CUDA = torch.device("cuda", 0)
H100 = SimpleNamespace(
    **{"name": "NVIDIA H100", "major": 9, "minor": 0, "multi_processor_count": 132, "warp_size": 32},
    **{"max_threads_per_multi_processor": 2048, "max_threads_per_block": 1024, "regs_per_multiprocessor": 65536},
    **{"shared_memory_per_block_optin": 232448, "total_memory": 80 * 2**30, "gcnArchName": "sm_90"},
)
PASSES = ("momentum encoder, forward", "encoder, forward", "encoder, backward")


class Lowered(BaseException):
    """Raised where Inductor would begin to compile, when all is counted; it would catch an Exception."""


@contextmanager
def pretended_h100() -> Iterator[None]:
    """A region in which Inductor and Triton believe in the device."""
    from triton.backends.compiler import GPUTarget  # a package of torch's builds for CUDA alone
    from triton.runtime.driver import driver

    target = SimpleNamespace(
        utils=SimpleNamespace(get_device_properties=lambda device: {"max_shared_mem": 232448}),
        get_current_target=lambda: GPUTarget("cuda", H100.major * 10, H100.warp_size),
    )
    answers: dict[tuple[Any, str], Any] = {
        (torch.cuda, "get_device_properties"): H100,
        (torch.cuda, "get_device_capability"): (H100.major, H100.minor),
        (torch.cuda, "is_bf16_supported"): True,
        (CudaInterface, "get_device_properties"): H100,
        (CudaInterface.Worker, "get_device_properties"): H100,
        (CudaInterface, "get_compute_capability"): H100.major * 10,
        (CudaInterface, "is_bf16_supported"): True,
        (CudaInterface, "is_triton_capable"): True,
        (CudaInterface, "raise_if_triton_unavailable"): None,
        (scheduler, "has_triton"): True,
    }
    with ExitStack() as stack:
        for (owner, name), answer in answers.items():
            stack.enter_context(mock.patch.object(owner, name, lambda *args, answer=answer, **options: answer))
        stack.enter_context(mock.patch.object(driver, "_active", target))
        stack.enter_context(config.patch(force_disable_caches=True))
        yield


def on_cuda(graph: GraphModule, inputs: list[Any], mode: FakeTensorMode) -> tuple[GraphModule, list[Any]]:
    """A traced graph and its inputs with all that lay on the CPU on the device."""
    graph = copy.deepcopy(graph)
    for node in graph.graph.nodes:
        if node.kwargs.get("device") is not None:
            node.kwargs = {**node.kwargs, "device": CUDA}
    with mode:
        given = [
            torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=CUDA)
            if isinstance(each, Tensor)
            else each
            for each in inputs
        ]
    FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*given)
    return graph, given


def lowered(graph: GraphModule, inputs: list[Any], **options: Any) -> dict[str, float]:
    """What Inductor makes of a graph: kernels of its own and GB that they move, calls of libraries and theirs."""
    found: Counter[str] = Counter()

    def count(self: GraphLowering) -> None:
        self.codegen()
        for node in self.scheduler.nodes:
            moved = node.get_read_write_buffers_sizes()
            kind = "library" if node.is_extern() else "own"
            found[f"{kind} kernels"] += moved > 0  # others are outputs of a kernel, or memory that is only taken
            found[f"{kind} GB"] += moved / 1e9
        raise Lowered

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    graph, given = on_cuda(graph, inputs, mode)
    context = torch._guards.tracing(torch._guards.TracingContext(mode))
    with mock.patch.object(GraphLowering, "compile_to_module", count), context, V.set_fake_mode(mode):
        try:
            compile_fx_inner(graph, given, **options)
        except Lowered:
            return dict(found)
    raise RuntimeError("this version of torch does not lower a graph by GraphLowering.compile_to_module")


def fake(model: nn.Module) -> nn.Module:
    """A model of the meta device with fake tensors of the CPU, channels last, in place of its own."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            like = torch.empty(weight.shape)
            like = like.to(memory_format=torch.channels_last) if like.ndim == 4 else like
            module.register_parameter(name, nn.Parameter(like, weight.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return model


def count_passes(arch: str, images: int, side: int, *, together: bool = True) -> dict[str, dict[str, float]]:
    """The figures of `lowered` by pass, for both views: in one batch, or in one each."""
    found: list[dict[str, float]] = []

    def lower(graph: GraphModule, inputs: list[Any], **options: Any) -> Any:
        found.append(lowered(graph, inputs, **options))
        return make_boxed_func(graph.forward)

    with torch.device("meta"):
        model = PixPro(arch)
    with pretended_h100(), FakeTensorMode(allow_non_fake_inputs=True):
        model = BatchNorm.convert(fake(model))
        join_views(model, together)
        views = torch.empty(images * (1 + together), 3, side, side).to(memory_format=torch.channels_last)

        def backend(graph: GraphModule, inputs: list[Any]) -> Any:
            return compile_fx(graph, inputs, inner_compile=lower)

        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                torch.compile(model.momentum_encoder, backend=backend, dynamic=False)(views)
            maps = torch.compile(model.encoder, backend=backend, dynamic=False)(views).maps
        sum(each.float().sum() for each in maps).backward()
    times = 1 if together else 2
    rows = [{what: times * figure for what, figure in row.items()} for row in found]
    return dict(zip(PASSES, rows, strict=True))


def main(argv: list[str] | None = None) -> int:
    """Print a table by pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--apart", action="store_true", help="a pass for each view (in one without)")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args(argv)
    rows = count_passes(args.arch, args.images, args.image_size, together=not args.apart)
    rows["all"] = dict(sum(map(Counter, rows.values()), Counter()))
    heads = ["own kernels", "own GB", "library kernels", "library GB"]
    cells = [[name, *(round(row.get(head, 0), 1) for head in heads)] for name, row in rows.items()]
    print(f"{args.arch}, {args.images} images of {args.image_size} px, torch {torch.__version__}\n")
    print(tabulate(cells, ["pass", *heads], "github"))
    if args.json:
        args.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
