"""CUDA tensors without a CUDA device: fake ones that compute nothing, and a record of what a step asks of them."""

import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
COPIES = (aten._to_copy, aten.copy_, aten._foreach_copy_)
WAITS = (aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim)  # the host has to know the result's shape
INDEXING = (aten.index, aten.index_put, aten.index_put_)
FREE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "device", "is_pinned", "lift_fresh")
READ_TWICE = {aten.native_batch_norm: (0,), aten.native_batch_norm_backward: (0, 1)}  # for statistics, then again
TENSORS_AT_ONCE = 32  # of one launch of a foreach call, about; the kernels' limit depends on their arguments


class Record(TorchDispatchMode):
    """Counts, while it is on, what CUDA tensors take: copies from the host, waits of the host, kernels, bytes.

    A foreach call is few kernels where torch has a fused one (one type, equal shapes and strides in all lists), else
    one for each tensor. Bytes are those that each operation reads and writes, as if nothing stayed in a cache.
    """

    def __init__(self) -> None:
        super().__init__()
        self.host_copies: list[str] = []
        self.waits: list[str] = []
        self.launches: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    @property
    def gigabytes(self) -> float:
        return sum(self.bytes.values()) / 1e9

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        packet = func.overloadpacket
        if packet is aten._local_scalar_dense and args[0].device.type == "cuda":
            self.waits.append(place(packet))
            return True if args[0].dtype == torch.bool else 1  # what is read decides nothing that is counted here
        out = func(*args, **(kwargs or {}))
        given, made = ([t for t in tree_leaves(each) if isinstance(t, Tensor)] for each in ((args, kwargs), out))
        tensors = {id(tensor): tensor for tensor in (*given, *made)}
        on_gpu = [tensor for tensor in tensors.values() if tensor.device.type == "cuda"]
        name = packet.__name__
        if not on_gpu or name in FREE or (func.is_view and packet is not aten._to_copy):
            return out
        if packet in COPIES:
            source, target = (given[0], made[0]) if packet is aten._to_copy else (given[-1], given[0])
            if source.device.type != target.device.type:
                (self.host_copies if target.device.type == "cuda" else self.waits).append(place(packet))
        elif any(tensor.device.type == "cpu" and tensor.ndim for tensor in given):
            self.host_copies.append(place(packet))  # an index from the host, which torch itself sends over
        masks = [i for i in tree_leaves(args)[1:] if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)]
        if packet in WAITS or (packet in INDEXING and masks):
            self.waits.append(place(packet))
        again = [args[i] for i in READ_TWICE.get(packet, ())]
        self.launches[name] += kernels(name, args)
        self.bytes[name] += sum(size(tensor) for tensor in (*on_gpu, *again))
        return out


def place(packet: Any) -> str:
    """The operation and the line of ours that asked for it."""
    frame = inspect.currentframe()
    while frame and "/pixpro/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{packet.__name__} at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else packet.__name__


def size(tensor: Tensor) -> int:
    """Bytes in memory: what is expanded counts once."""
    count = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= length if stride else min(length, 1)
    return count


def kernels(name: str, args: tuple) -> int:
    """Launches of one operation: 1, or those of a foreach call over its lists."""
    if not name.startswith("_foreach"):
        return 1
    lists = [arg for arg in args if isinstance(arg, (list, tuple)) and arg and isinstance(arg[0], Tensor)]
    count = len(lists[0])
    types = {tensor.dtype for each in lists for tensor in each}
    of_lists = max(len({tensor.dtype for tensor in each}) for each in lists)
    alike = of_lists == 1 if name == "_foreach_copy_" else len(types) == 1  # a copy may change the type
    for row in zip(*lists, strict=True):
        alike &= all(tensor.shape == row[0].shape and strides(tensor) == strides(row[0]) for tensor in row)
    return -(-count // TENSORS_AT_ONCE) if alike else count


def strides(tensor: Tensor) -> list[int]:
    """Those that matter: of axes longer than 1."""
    return [stride for stride, length in zip(tensor.stride(), tensor.shape, strict=True) if length > 1]


@contextmanager
def fake_cuda() -> Iterator[None]:
    """A region in which `device="cuda"`, autocast on it and backward passes work without a device."""
    common, backward = torch.cuda.amp.common, Tensor.backward
    unavailable, supported = common.amp_definitely_not_available, torch.cuda.is_bf16_supported
    common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True
    Tensor.backward = walk_back
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        common.amp_definitely_not_available, torch.cuda.is_bf16_supported = unavailable, supported
        Tensor.backward = backward


def on_fake_cuda(model: nn.Module) -> nn.Module:
    """A model that was built on the meta device, with fake tensors of CUDA, channels last, in place of its own."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(fake_like(parameter.detach()), parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, fake_like(buffer))
    return model


def fake_like(tensor: Tensor) -> Tensor:
    """A fake tensor of CUDA of the same shape and type."""
    like = torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)
    return like.to(memory_format=torch.channels_last) if tensor.ndim == 4 else like


@torch.no_grad()
def walk_back(tensor: Tensor, gradient: Tensor | None = None) -> None:
    """`Tensor.backward` in plain Python: autograd's own engine asks the driver for the device's streams."""
    gradient = torch.ones_like(tensor) if gradient is None else gradient
    nodes, waiting = [tensor.grad_fn], Counter()
    for node in nodes:
        for after, _ in node.next_functions:
            if after is not None and not waiting[after]:
                nodes.append(after)
            waiting[after] += 1
    sums: dict[Any, dict[int, Tensor]] = {tensor.grad_fn: {tensor.output_nr: gradient}}
    ready = [tensor.grad_fn]
    while ready:
        node = ready.pop()
        found = sums.pop(node, {})
        if hasattr(node, "variable"):
            variable = node.variable
            # Gradients have the strides of their variable: cuDNN gives them so, though fake tensors do not know it.
            gradient = found[0] if strides(found[0]) == strides(variable) else torch.empty_like(variable)
            variable.grad = gradient if variable.grad is None else variable.grad + gradient
            continue
        # Of an output that nothing used, the gradient is zero: here it only needs its shape.
        full = [found[i] if i in found else unused(each) for i, each in enumerate(node._input_metadata)]
        of_ours = isinstance(node, torch.autograd.function.BackwardCFunction)
        out = node.apply(*full) if of_ours else node(*full)
        out = out if isinstance(out, tuple) else (out,)
        assert all(each is None for each in out[len(node.next_functions) :]), "for arguments that are no tensors"
        for (after, output), each in zip(node.next_functions, out, strict=False):
            if after is None:
                continue
            if each is not None:
                wanted = after._input_metadata[output]  # of what was broadcast, the engine sums the gradient
                each = each.sum_to_size(wanted.shape).to(wanted.dtype)
                known = sums.setdefault(after, {})
                known[output] = known[output] + each if output in known else each
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)


def unused(metadata: Any) -> Tensor:
    """What stands for the gradient of an output that nothing used."""
    return torch.empty(metadata.shape, dtype=metadata.dtype, device=metadata.device)
