"""Our step as an earlier checkout of this project has it, to take turns with today's on a CPU."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path


class Earlier:
    """The contender "ours" of a checkout, in a process that imports nothing of this one."""

    def __init__(self, checkout: Path, settings: dict[str, object]) -> None:
        """settings: the arguments of `make_case`.

        Raises SystemExit when the folder holds no such benchmark.
        """
        if not (checkout / "pixpro").is_dir() or not (checkout / "benchmarks" / "step.py").is_file():
            sys.exit(f"--before {checkout}: no pixpro/ and benchmarks/step.py there; name a checkout of this project")
        self.connection, theirs = Pipe()
        command = [sys.executable, __file__, str(checkout.resolve()), str(theirs.fileno())]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # which may name this one
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=checkout, env=clean)
        theirs.close()
        self.connection.send(settings)
        self.reason: str = self._answer()

    def turn(self) -> tuple[float, str]:
        """Time one step there, the second of two; why there was none."""
        self.connection.send(True)
        return self._answer()

    def close(self) -> None:
        """End its process."""
        self.connection.close()
        self.process.wait()

    def _answer(self):
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            sys.exit(f"--before: the process there ended with exit code {self.process.wait()}; its error stands above")


class _Plain:
    """The connection for the code of the checkout, whose own types are not sent: a tuple is one there and here."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.recv = connection, connection.recv

    def send(self, told: str | tuple[float, str]) -> None:
        self.connection.send(tuple(told) if isinstance(told, tuple) else told)


def _serve(checkout: str, handle: int) -> None:
    sys.path[0] = checkout
    connection = Connection(handle)
    now = find_spec("benchmarks.steps") is not None  # else as the files lay until November 2026
    contenders = import_module("benchmarks.steps.contenders" if now else "benchmarks.contenders")
    turns = import_module("benchmarks.steps.turns" if now else "benchmarks.step_turns")
    turns._serve("ours", contenders.make_case(**connection.recv()), _Plain(connection))


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
