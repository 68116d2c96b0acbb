"""The long versions: hundreds of kills and signals at random moments, by `pytest -m soak`."""

import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from pixpro.errors import Abandoned, Stopped
from tests.helpers.runs import Run, arguments, pictures, rows, weights
from tests.helpers.sabotage import die_while_saving

pytestmark = pytest.mark.soak
MORE = ("--epochs", "15", "--save_every", "1steps", "--keep_every", "1")
MOMENTS = ("half a file", "before the renames", "between the renames")


class Rounds:
    """Runs of the same training, disturbed and resumed until they are through; each must end like the first."""

    def __init__(self, folder: Path, ranks: int = 1) -> None:
        self.folder, self.ranks = folder, ranks
        self.data = pictures(folder / "images")
        self.finished = self.disturbed = 0
        for _ in range(2):  # the first one also starts the server
            shutil.rmtree(folder / "whole", ignore_errors=True)
            started = time.monotonic()
            run = Run(arguments(self.data, folder / "whole", *MORE), ranks=ranks)
            assert set(run.wait()) == {0}, run.text()
            self.seconds = time.monotonic() - started
        self.expected = weights(folder / "whole"), rows(folder / "whole")

    @property
    def output(self) -> Path:
        return self.folder / f"run{self.finished}"

    def start(self, prepare=None) -> Run:
        return Run(arguments(self.data, self.output, *MORE, "--resume", "auto"), prepare, self.ranks)

    def ended(self, run: Run, codes: list[int]) -> None:
        """Count a run that came to its end or was disturbed."""
        assert not any("Traceback" in run.text(rank) for rank in range(self.ranks)), run.text()
        if set(codes) == {0}:
            assert (weights(self.output), rows(self.output)) == self.expected
            self.finished += 1
        else:
            self.disturbed += 1

    def finish(self) -> None:
        """Let the last one go through."""
        run = self.start()
        codes = run.wait()
        assert set(codes) == {0}, run.text()
        self.ended(run, codes)


def wait_for_text(run: Run, text: str) -> None:
    while text not in run.text() and any(process.is_alive() for process in run.processes):
        time.sleep(0.01)


def test_a_hundred_kills_lose_nothing(tmp_path, capsys):
    rounds, rng, in_saves = Rounds(tmp_path), random.Random(0), 0
    while rounds.disturbed < 100:
        in_save = rng.random() < 0.3
        run = rounds.start(partial(die_while_saving, rng.choice(MOMENTS), rng.randrange(8)) if in_save else None)
        if not in_save:
            run.processes[0].join(rng.uniform(0, rounds.seconds / 2))
            run.signal(signal.SIGKILL)
        codes = run.wait()
        assert codes[0] in (0, -signal.SIGKILL), run.text()
        in_saves += in_save and codes[0] != 0
        rounds.ended(run, codes)
    rounds.finish()
    assert in_saves >= 20
    with capsys.disabled():
        print(f"\n{rounds.disturbed} kills, {in_saves} of them in saves; {rounds.finished} runs ended equal")


def test_twenty_kills_of_one_of_two_processes_lose_nothing(tmp_path, capsys):
    rounds, rng = Rounds(tmp_path, ranks=2), random.Random(1)
    while rounds.disturbed < 20:
        run, victim = rounds.start(), rng.randrange(2)
        wait_for_text(run, "process(es) on cpu")
        run.processes[victim].join(rng.uniform(0, rounds.seconds / 2))
        run.signal(signal.SIGKILL, victim)
        codes = run.wait()
        assert codes == [0, 0] or codes[victim] in (0, -signal.SIGKILL), run.text()
        assert codes[1 - victim] in (0, Abandoned.exit_code), run.text(1 - victim)
        rounds.ended(run, codes)
    rounds.finish()
    with capsys.disabled():
        print(f"\n{rounds.disturbed} kills of one of two; {rounds.finished} runs ended equal")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_thirty_requests_to_stop_repeat_and_lose_nothing(tmp_path, capsys, name):
    rounds, rng = Rounds(tmp_path), random.Random(2)
    while rounds.disturbed < 30:
        run = rounds.start()
        wait_for_text(run, "process(es) on cpu")
        run.processes[0].join(rng.uniform(0, rounds.seconds / 2))
        before = len(rows(rounds.output)) if (rounds.output / "metrics.jsonl").exists() else 0
        run.signal(signal.Signals[name])
        codes = run.wait()
        assert codes[0] in (0, Stopped.exit_code), run.text()
        rounds.ended(run, codes)
        if codes[0]:
            assert f"stopped by {name}, saved after step" in run.text()
            done = rows(rounds.output)
            assert len(done) >= before and done == rounds.expected[1][: len(done)]
    rounds.finish()
    with capsys.disabled():
        print(f"\n{rounds.disturbed} times {name}; {rounds.finished} runs ended equal")
