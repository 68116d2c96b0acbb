"""Prefetching: every batch once, in order, on the device."""

import pytest
import torch

from pixpro.data import Batch
from pixpro.data.prefetch import prefetch
from pixpro.data.views import View


def batches(count: int) -> list[Batch]:
    torch.manual_seed(0)
    return [
        Batch(
            *(View(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), torch.rand(4, 4)) for _ in range(2)),
            *(torch.rand(4, 8) for _ in range(2)),
            torch.arange(4) + 4 * i,
            torch.zeros(4, dtype=torch.bool),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_on_the_cpu_batches_pass_through(count):
    given = batches(count)
    assert all(a is b for a, b in zip(prefetch(given, torch.device("cpu")), given, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_batch_arrives_in_order_and_whole():
    given = batches(6)
    for batch, was in zip(prefetch(given, torch.device("cuda")), given, strict=True):
        work = torch.randn(2000, 2000, device="cuda") @ torch.randn(2000, 2000, device="cuda")
        arrived, sent = ((*b.view1, *b.view2, b.colour1, b.colour2) for b in (batch, was))
        for tensor, original in zip(arrived, sent, strict=True):
            assert tensor.is_cuda and torch.equal(tensor.cpu(), original)
        assert torch.equal(batch.index, was.index) and work.isfinite().all()
