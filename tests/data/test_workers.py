"""Data workers: what a signal, a scheduler or a mistake does to one, and what the run says then."""

import os
import signal
import threading
from pathlib import Path

import pytest

from pixpro.errors import UserError
from pixpro.images import open_images
from tests.helpers import pictures
from tests.helpers.small_loaders import epoch_of, loader_of, same


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_images([pictures.folder(tmp_path_factory.mktemp("images") / "data", 26)])


def test_a_killed_worker_stops_the_run_with_one_line(source):
    loader = loader_of(source, workers=1)
    list(loader)
    (worker,) = loader._batches._iterator._workers
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="data worker died") as error:
        epoch_of(loader)
    assert "\n" not in str(error.value)


def test_a_mistake_of_ours_in_a_worker_keeps_its_traceback(source, monkeypatch):
    def broken(*_):
        raise RuntimeError("a mistake")

    monkeypatch.setattr("pixpro.data.samples.draw_colour", broken)  # forked workers inherit it
    with pytest.raises(RuntimeError, match="(?s)Traceback.*draw_colour.*a mistake"):
        list(loader_of(source, workers=1, start_method="fork"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM])
def test_workers_survive_a_scheduler_s_signals(source, number):
    loader = loader_of(source, workers=1)
    expected = epoch_of(loader)
    (worker,) = loader._batches._iterator._workers
    other = threading.Thread(target=os.system, args=(f"kill -{int(number)} {worker.pid}",))
    other.start()
    other.join()
    assert same(epoch_of(loader), expected)
    assert worker.is_alive()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_no_thread_of_a_worker_takes_a_scheduler_s_sigterm(source):
    """Threads that libraries start in a new process, before our code runs in it, once did: the worker died."""
    loader = loader_of(source, workers=1)
    list(loader)
    (worker,) = loader._batches._iterator._workers
    statuses = [task.joinpath("status").read_text() for task in Path(f"/proc/{worker.pid}/task").iterdir()]
    blocked = [int(line.split()[1], 16) for text in statuses for line in text.splitlines() if line.startswith("SigBlk")]
    taking = [mask for mask in blocked if not mask >> (signal.SIGTERM - 1) & 1]
    assert len(blocked) > 1 and len(taking) <= 1, "only the thread that waits for SIGTERM may take it"
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_worker_ends_when_the_training_process_says_so(source):
    loader = loader_of(source, workers=1)
    list(loader)
    (worker,) = loader._batches._iterator._workers
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0
