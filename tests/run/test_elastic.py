"""Runs that torchrun starts again after a death: each attempt speaks in its own name, and the result is the same."""

import random
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import HashStore

from pixpro.training.distributed import meet
from tests.helpers.elastic import ElasticRun, torchrun
from tests.helpers.runs import STEPS, arguments, rows, weights

SAVE_OFTEN = ("--save_every", "1steps")


def finished_equal(
    data: Path, whole: Path, place: Path, backend: str, victims: list[tuple[int, int]], machines: int = 1
) -> list[str]:
    """Run until the end, which must be that of the undisturbed run; returns how often each machine had to start."""
    output = place / "output"
    command = arguments(data, output, *SAVE_OFTEN, "--resume", "auto")
    run = ElasticRun(command, place / "logs", backend, victims, machines)
    assert run.wait() == [0] * machines, run.text()
    assert (weights(output), rows(output)) == (weights(whole), rows(whole))
    assert [step for step, *_ in rows(output)] == list(range(1, STEPS + 1))
    return run.attempts()


@pytest.mark.parametrize("backend", ["static", "c10d"])
def test_a_run_whose_processes_die_twice_is_finished_by_the_third_attempt(data, whole_of_two, tmp_path, backend):
    assert finished_equal(data, whole_of_two, tmp_path, backend, [(1, 3), (0, 8)]) == ["2 2"]


def test_machines_whose_agents_count_restarts_differently_meet_again(data, whole_of_two, tmp_path):
    """The agent of the machine that lost a process counts it, the other one just joins it again (torch's c10d)."""
    attempts = finished_equal(data, whole_of_two, tmp_path, "c10d", [(1, 3)], machines=2)
    assert sorted(attempts) in (["0", "1"], ["1", "1"])


@pytest.mark.soak
def test_twenty_deaths_under_torchrun_end_in_twenty_equal_runs(data, whole_of_two, tmp_path, capsys):
    rng, started, begun = random.Random(3), time.monotonic(), []
    for number in range(20):
        place = tmp_path / str(number)
        place.mkdir()
        output, victim = place / "output", (rng.randrange(2), rng.randrange(STEPS))
        command = arguments(data, output, *SAVE_OFTEN, "--resume", "auto")
        code, text = torchrun(command, place / "logs", ("static", "c10d")[number % 2], [victim])
        assert code == 0, text
        assert (weights(output), rows(output)) == (weights(whole_of_two), rows(whole_of_two))
        begun.append(text.count("2 process(es) on cpu"))
    assert begun == [2] * 20  # each was started twice
    with capsys.disabled():
        seconds = time.monotonic() - started
        print(f"\n20 deaths of one of two, 10 with each rendezvous; 20 runs ended equal in {seconds:.0f} s")


def met(store: HashStore, world_size: int, pauses: dict[int, float]) -> dict[int, str]:
    """The names under which the processes of an attempt meet, each arriving after its pause."""
    names: dict[int, str] = {}

    def arrive(rank: int, pause: float) -> None:
        time.sleep(pause)
        try:
            names[rank] = meet(store, rank, world_size, timedelta(seconds=3 + max(pauses.values())))
        except TimeoutError:
            names[rank] = "nobody"

    threads = [threading.Thread(target=arrive, args=each) for each in pauses.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return names


@pytest.mark.parametrize("late", [0, 1, 2])
def test_attempts_that_share_a_store_never_share_a_name(late):
    store, seen = HashStore(), set()
    for attempt in range(3):
        names = met(store, 3, {rank: 0.2 if rank == late else 0.0 for rank in range(3)})
        assert len(set(names.values())) == 1 and "nobody" not in names.values()
        seen |= set(names.values())
        assert len(seen) == attempt + 1


def test_an_attempt_in_which_one_never_came_leaves_nothing_that_misleads_the_next():
    store = HashStore()
    assert met(store, 3, {0: 0.0, 2: 0.0})[0] == "nobody"
    names = met(store, 3, {1: 0.0, 2: 0.3, 0: 0.6})
    assert len(set(names.values())) == 1 and "nobody" not in names.values()
