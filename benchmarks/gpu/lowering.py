"""The compiled encoders as Inductor makes them for a GPU, on a machine without one: kernels, and GB that they move.

    python benchmarks/gpu/lowering.py --arch resnet50 --images 128

Both views pass as one batch in bf16. The passes are traced on fake CUDA tensors, parted into forward and backward as
torch.compile does it, and lowered up to the point at which code would be compiled and run. A convolution or matrix
product is one call of a library; everything else is in fused kernels, whose inputs and outputs are counted. Private
interfaces of torch: where a version lacks them, it says so and exits with 3.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from pixpro import PixPro
from pixpro.training.sync_batchnorm import BatchNorm, join_views
from tests.helpers.fake_cuda import CUDA, fake_cuda, fake_like, on_fake_cuda, walk_back

try:
    from torch._dynamo.utils import detect_fake_mode
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor import config
    from torch._inductor.compile_fx import _recursive_joint_graph_passes, _recursive_post_grad_passes
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.graph import GraphLowering
    from torch._inductor.scheduler import ExternKernelSchedulerNode, NopKernelSchedulerNode
    from torch._inductor.virtualized import V
    from torch.fx.experimental.proxy_tensor import make_fx
except ImportError as error:
    print(f"this torch ({torch.__version__}) has other inner interfaces: {error}", file=sys.stderr)
    sys.exit(3)


class H100:
    """What Inductor asks of the device."""

    name, major, minor, multi_processor_count, warp_size = "NVIDIA H100", 9, 0, 132, 32
    regs_per_multiprocessor, max_threads_per_multi_processor, total_memory = 65536, 2048, 80 * 10**9
    shared_memory_per_block, shared_memory_per_block_optin, gcnArchName = 49152, 232448, ""
    L2_cache_size, max_threads_per_block = 50 * 2**20, 1024


@contextmanager
def plain_operations():
    """A region in which the passes change nothing in place, as a traced graph must not."""
    with ExitStack() as stack:
        patch = lambda *args: stack.enter_context(mock.patch.object(*args))  # noqa: E731
        patch(torch.compiler, "is_compiling", lambda: True)
        patch(Tensor, "lerp_", lambda running, *_: running)  # statistics of 100 channels: nothing beside the maps
        patch(Tensor, "__iadd__", Tensor.__add__)
        yield


def joint_graph(encoder: nn.Module, images: int, side: int) -> torch.fx.GraphModule:
    """Forward and backward pass of an encoder: (weights, image batch), (gradient of the map) -> map, gradients."""
    for module in encoder.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    names, weights = zip(*encoder.named_parameters(), strict=True)

    def passes(primals: list[Tensor], tangents: list[Tensor]) -> list[Tensor]:
        *own, pixels = primals
        own = [weight.detach().requires_grad_() for weight in own]
        with torch.enable_grad(), torch.autocast("cuda", torch.bfloat16):
            (out,) = torch.func.functional_call(encoder, dict(zip(names, own, strict=True)), pixels).maps
        walk_back(out, tangents[0])
        return [out, *(weight.grad for weight in own), None]

    pixels = fake_like(torch.empty(images, 3, side, side, device="meta"))
    cells = torch.empty(images, 256, side // 32, side // 32, device=CUDA, dtype=torch.bfloat16)
    cells = cells.to(memory_format=torch.channels_last)
    given = [weight.detach() for weight in weights], [cells]
    with plain_operations():
        return make_fx(passes, decomposition_table=select_decomp_table())([*given[0], pixels], given[1])


def lowered(graph: torch.fx.GraphModule, *, inference: bool, backward: bool) -> dict[str, float]:
    """Kernels, library calls and GB of a graph."""
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    with V.set_fake_mode(detect_fake_mode(inputs)):
        _recursive_post_grad_passes(graph, is_inference=inference)
        lowering = GraphLowering(graph, example_inputs=inputs, is_inference=inference, is_backward=backward)
        with V.set_graph_handler(lowering):
            lowering.run(*inputs)
            lowering._update_scheduler()
            nodes = lowering.scheduler.nodes
            told = {"kernels": 0, "calls": 0, "gb_kernels": 0.0, "gb_calls": 0.0}
            for node in nodes:
                if isinstance(node, NopKernelSchedulerNode):
                    continue
                kind = "calls" if isinstance(node, ExternKernelSchedulerNode) else "kernels"
                told[kind] += 1
                told[f"gb_{kind}"] += node.get_read_write_buffers_sizes() / 1e9
    return told


@contextmanager
def pretending():
    """A region in which Inductor finds an H100."""
    from torch._inductor import utils
    from torch._inductor.runtime.hints import DeviceProperties
    from torch._inductor.scheduler import Scheduler

    with ExitStack() as stack:
        patch = lambda *args, **more: stack.enter_context(mock.patch.object(*args, **more))  # noqa: E731
        patch(torch.cuda, "get_device_properties", lambda *_: H100)
        patch(torch.cuda, "get_device_capability", lambda *_: (9, 0))
        patch(torch.cuda, "current_device", lambda: 0)
        patch(torch.cuda, "device_count", lambda: 1)
        patch(DeviceProperties, "create", lambda device: DeviceProperties("cuda", 0, 132, 90, 9, 65536, 2048, 1024, 32))
        patch(Scheduler, "create_backend", mock.MagicMock())
        if hasattr(utils, "has_triton"):
            patch(utils, "has_triton", lambda *_: True)
        stack.enter_context(config.patch(max_autotune=False, fx_graph_cache=False, estimate_op_runtime="default"))
        yield


def measure(arch: str, images: int, side: int, report: Callable[[str], None] = print) -> dict:
    """The three graphs of a step: the online encoder forward and backward, the momentum encoder forward."""
    with torch.device("meta"):
        model = PixPro(arch)
    with fake_cuda(), pretending():
        model = BatchNorm.convert(on_fake_cuda(model))
        join_views(model)
        joint = joint_graph(model.encoder, 2 * images, side)
        report(f"traced: {len(joint.graph.nodes)} operations")
        _recursive_joint_graph_passes(joint)
        forward, backward = min_cut_rematerialization_partition(joint, None, num_fwd_outputs=1)
        told = {"forward": lowered(forward, inference=False, backward=False)}
        told["backward"] = lowered(backward, inference=False, backward=True)
    told["kernels GB"] = told["forward"]["gb_kernels"] + told["backward"]["gb_kernels"]
    return told


def main(argv: list[str] | None = None) -> int:
    """Print what a step's compiled code would be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    told = measure(args.arch, args.images, args.side, lambda text: print(text, file=sys.stderr, flush=True))
    text = json.dumps({"torch": torch.__version__, **told}, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
