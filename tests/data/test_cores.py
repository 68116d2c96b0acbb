"""Sharing out the cores between training processes and their workers."""

import os

import pytest

from pixpro.data.cores import available_cores, share_cores


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 8])
@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 16, 96])
def test_nobody_is_promised_more_cores_than_there_are(cores, processes, on_gpu):
    workers, threads = share_cores(processes, on_gpu, cores)
    assert threads >= 1 and workers >= 0
    if cores >= 2 * processes:
        assert (workers + threads) * processes <= cores


def test_few_cores_without_a_gpu_go_to_the_network():
    assert share_cores(1, on_gpu=False, cores=2) == (0, 2)
    assert share_cores(2, on_gpu=False, cores=2) == (0, 1)


def test_a_gpu_gets_at_least_one_worker():
    assert all(share_cores(1, on_gpu=True, cores=cores)[0] >= 1 for cores in range(1, 20))


def test_cores_are_those_of_the_affinity():
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_a_container_s_quota_counts(monkeypatch):
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: "150000 100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert available_cores() == 2
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: "max 100000\n")
    assert available_cores() == 64


@pytest.mark.parametrize(
    ("seen", "each", "tasks", "workers"),
    [
        (12, "12", "8", 11),  # bound: the cores are this task's own
        (12, "12", "8(x4)", 11),
        (96, "12", "8", 11),  # not bound: every task sees the node
        (96, "96", "1", 11),  # torchrun's eight processes in a single task
        (12, "", "", 1),
    ],
)
def test_under_slurm_cores_of_a_task_are_not_divided_again(monkeypatch, seen, each, tasks, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(seen)))
    monkeypatch.setattr("pixpro.data.cores.quota", lambda: 1000)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", each)
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
    assert share_cores(8, on_gpu=True) == (workers, 1)
