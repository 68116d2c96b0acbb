"""On a CPU what one step frees is kept for the next."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pixpro.training import allocator

COUNT = """
import resource, torch
from pixpro.training.allocator import keep_freed_memory
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
    assert allocator.keep_freed_memory() is False
