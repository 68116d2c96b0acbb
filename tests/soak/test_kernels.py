"""Inductor lowers the encoders for a GPU that is not there, and what it makes of them is counted."""

import pytest
import torch
from torch import nn

from pixpro import PixPro

kernels = pytest.importorskip(
    "benchmarks.gpu.kernels", reason="this version of torch has other interfaces", exc_type=ImportError
)


@pytest.mark.soak
@pytest.mark.parametrize("together", [True, False])
def test_every_convolution_is_a_library_s_and_the_rest_is_fused(together):
    pytest.importorskip("triton", reason="torch was built without CUDA")
    rows = kernels.count_passes("resnet18", 2, 64, together=together)
    torch._dynamo.reset()
    with torch.device("meta"):
        layers = list(PixPro("resnet18").encoder.modules())
    passes = 1 if together else 2
    convolutions, norms = (
        passes * sum(isinstance(each, kind) for each in layers) for kind in (nn.Conv2d, nn.BatchNorm2d)
    )
    for row in rows.values():
        assert row["library kernels"] == convolutions
        assert 0 < row["own kernels"] < 10 * norms and row["own GB"] > 0
    assert rows["encoder, backward"]["own GB"] > rows["momentum encoder, forward"]["own GB"]
