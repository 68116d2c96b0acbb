"""Kernels are chosen for speed, or with --deterministic for equal bits."""

import pytest
import torch

from pixpro.training.determinism import choose_kernels


@pytest.fixture(autouse=True)
def settings_are_put_back(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_are_searched_for_only_where_bits_may_differ(deterministic):
    torch.backends.cudnn.benchmark = deterministic
    choose_kernels(deterministic=deterministic)
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
