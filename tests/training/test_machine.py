"""What a run tells torch and the C library before its first step, and what it finds out about the machine."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixpro.errors import UserError
from pixpro.training import machine

COUNT = """
import resource, torch
from pixpro.training.machine import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    for _ in range(4):
        torch.zeros(48, 2**20)
step()
before = faults()
step()
print(faults() - before)
"""


# --- memory


def faults_of_a_step(keep):
    """Pages that four tensors of 192 MiB, one after the other, cost once others of that size were freed."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", COUNT.format(keep=keep)]
    return int(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
def test_freed_tensors_serve_the_next_step():
    assert faults_of_a_step(keep=False) > 1000  # also with pages of 2 MiB would it be 384
    assert faults_of_a_step(keep=True) < 50


def test_another_c_library_is_left_as_it_is(monkeypatch):
    class Other:
        pass

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Other())
    assert machine.keep_freed_memory() is False


# --- kernels and threads


@pytest.fixture
def settings_are_put_back(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.allow_tf32
    yield
    torch.use_deterministic_algorithms(before[0])
    cudnn.benchmark, cudnn.allow_tf32 = before[1:]


@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_are_searched_for_only_where_bits_may_differ(deterministic, settings_are_put_back):
    torch.backends.cudnn.benchmark = deterministic
    machine.choose_kernels(deterministic=deterministic)
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic


def test_float32_is_not_rounded_in_convolutions_either(settings_are_put_back):
    torch.backends.cudnn.allow_tf32 = True  # torch's default, while that of matrix products is False
    machine.choose_kernels(deterministic=False)
    assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is False


@pytest.mark.parametrize(
    ("given", "torchrun", "chosen"),
    [(None, False, 3), ("2", False, None), ("1", False, None), ("1", True, 3), ("4", True, None)],
)
def test_threads_are_chosen_unless_the_user_has_chosen(monkeypatch, given, torchrun, chosen):
    for name, value in (("OMP_NUM_THREADS", given), ("TORCHELASTIC_RUN_ID", "none" if torchrun else None)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    machine.use_threads(3)
    assert told == ([] if chosen is None else [chosen])


# --- GPUs that cannot be used


@pytest.fixture
def with_a_gpu_that_torch_does_not_see(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_a_gpu_that_torch_cannot_use_stops_the_run_with_the_reason_and_the_way_out(with_a_gpu_that_torch_does_not_see):
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES=") as error:
        machine.require_usable_gpus()
    text = str(error.value)
    assert "A100" in text or "/dev/nvidia" in text
    assert torch.__version__ in text and "driver" in text and "docs/set-up.md" in text and "\n" not in text


@pytest.mark.parametrize("value", ["", "-1"])
def test_who_hides_the_gpus_trains_on_the_cpu(with_a_gpu_that_torch_does_not_see, monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    machine.require_usable_gpus()


def test_without_a_gpu_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "nvidia_gpu", lambda: "")
    machine.require_usable_gpus()


def test_a_tool_that_finds_no_gpu_is_no_gpu(with_a_gpu_that_torch_does_not_see, tmp_path):
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has one")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2\nexit 9\n")
    assert machine.nvidia_gpu() == ""


@pytest.mark.parametrize(
    ("capability", "usable"),
    [
        ((7, 0), False),
        ((7, 5), True),
        ((8, 0), True),
        ((8, 9), True),
        ((9, 0), True),
        ((12, 1), True),
        ((10, 0), False),
    ],
)
def test_a_gpu_needs_machine_code_of_its_generation_or_intermediate_code(monkeypatch, capability, usable):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_86", "sm_90", "compute_120"])
    if usable:
        machine.require_kernels("some GPU", capability)
        return
    with pytest.raises(UserError, match=f"compute capability {capability[0]}.{capability[1]}.*sm_75, sm_80"):
        machine.require_kernels("some GPU", capability)
