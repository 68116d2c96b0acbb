"""The ways in which a run ends before its last step, each with its exit code."""

import os
import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # ask a run to save and stop


class Ending(Exception):
    """A run ends early; its text is one line that says why and what to do. exit_code tells scripts."""

    exit_code: int


class Stopped(Ending):
    """A signal asked for it; the state is saved, and --resume auto goes on (EX_TEMPFAIL: try again)."""

    exit_code = 75


class Diverged(Ending):
    """Too many steps had a loss or gradient that is not finite; the last good state is saved (EX_SOFTWARE)."""

    exit_code = 70


class NotSaved(Ending):
    """The last checkpoint could not be written; an older one is on disk (EX_IOERR)."""

    exit_code = 74


class Abandoned(Ending):
    """Another process of the group died or hangs; go on from the last checkpoint (EX_UNAVAILABLE)."""

    exit_code = 69


def end_at_once() -> None:
    """End this process the way SIGINT does, whatever it is doing: shells report 130."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
