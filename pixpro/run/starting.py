"""What a program does -> done in one process or in several, with one line on how it ended, and one exit code."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta

import torch

from pixpro.errors import Abandoned, Ending, Stopped, UserError, first_line, printable
from pixpro.run.output import lasting_output
from pixpro.training import distributed
from pixpro.training.machine import nvidia_gpu
from pixpro.training.processes import Process
from pixpro.training.watchdog import cause, of_communication


def processes_to_start(several: bool, nproc: int) -> int:
    """How many processes to start on this machine; one under torchrun, which has started them.

    several: whether more than one is wanted. nproc: how many, 0 for one per GPU.
    """
    if not several or "RANK" in os.environ:
        return 1
    gpus = torch.cuda.device_count()
    if gpus == 0 and not nvidia_gpu():  # one that cannot be used stops each process, with the reason
        print(f"no GPU found: training on the CPU with {nproc or 1} process(es), see --nproc")
    return nproc or gpus or 1


def in_group(work: Callable[[Process], None], timeout: float) -> int:
    """Meet the other processes, if there are any, and work with them; returns this process's exit code.

    timeout: minutes to wait for another one.
    """
    with lasting_output():
        try:
            process = distributed.join(timedelta(minutes=timeout))
        except UserError as error:
            return say(error)
        code = outcome(lambda: work(process), process, 60 * timeout)
        distributed.leave()
        return code


def outcome(function: Callable[[], None], process: Process, timeout: float) -> int:
    """Call a function; returns 0, 2 for wrong input, or the exit code of an Ending. Other errors are raised.

    What is wrong is said once for all processes. timeout: seconds after which a process at its own work is too slow.
    """
    try:
        function()
    except (UserError, Ending) as error:
        return say(error, process)
    except torch.OutOfMemoryError as error:
        return say(UserError(f"the GPU's memory is full ({first_line(error)}); use more --accumulation"), process)
    except RuntimeError as error:
        if process.store is None or process.agreed or not of_communication(error):
            raise
        gone = Abandoned(f"the connection to other processes broke ({first_line(error)}); go on with --resume auto")
        abandon(cause(process, first_line(error), timeout) or gone, process)
    return 0


def abandon(error: Abandoned, process: Process) -> None:
    """Say why and end this process at once: leaving the group in order would wait for those who are gone."""
    code = say(error, process)
    sys.stdout.flush()
    os._exit(code)


def say(error: UserError | Ending, process: Process | None = None) -> int:
    """Print an error's line, once for all processes; returns its exit code.

    The main process says what all have agreed on, else the first that knows. process: None before this process has
    met the others; what it finds wrong then, nobody else may know.
    """
    if process is None or (process.is_main if process.agreed else process.first_to_speak()):
        label = "" if isinstance(error, Stopped) else "error: "
        print(label + printable(str(error)), file=sys.stderr, flush=True)
    return error.exit_code
