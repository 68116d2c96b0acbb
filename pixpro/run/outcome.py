"""How a process's run went -> one line for the user and an exit code for scripts."""

import os
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist

from pixpro.errors import UserError, printable
from pixpro.run.faults import of_communication, roll_call
from pixpro.training.distributed import Process
from pixpro.training.endings import Abandoned, Ending


def outcome(function: Callable[[], None], process: Process) -> int:
    """Call a function; returns 0, 2 for wrong input, or the exit code of an Ending. Other errors are raised.

    What is wrong is said once for all processes, by the first that knows.
    """
    try:
        function()
    except (UserError, Ending) as error:
        return say(error, process)
    except torch.OutOfMemoryError as error:
        return say(UserError(f"the GPU's memory is full ({first_line(error)}); use more --accumulation"), process)
    except RuntimeError as error:
        if process.store is None or not of_communication(error):
            raise
        abandon(roll_call(process, "the step", first_line(error)), process)
    return 0


def abandon(error: Abandoned, process: Process) -> None:
    """Say why and end this process at once: leaving the group in order would wait for those who are gone."""
    code = say(error, process)
    sys.stdout.flush()
    os._exit(code)


def say(error: UserError | Ending, process: Process | None = None) -> int:
    """Print an error's line unless another process of the group has done so; returns its exit code.

    process: None before this process has met the others; what it finds wrong then, nobody else may know.
    """
    if process is None or process.store is None or first_to_speak(process.store):
        label = "" if getattr(error, "exit_code", 2) == 75 else "error: "
        print(label + printable(str(error)), file=sys.stderr, flush=True)
    return getattr(error, "exit_code", 2)


def first_to_speak(store: dist.Store) -> bool:
    """Whether no other process has printed why the run ends."""
    try:
        return store.add("said", 1) == 1
    except RuntimeError:  # the process that kept the store is gone
        return True


def first_line(error: Exception) -> str:
    """The beginning of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
