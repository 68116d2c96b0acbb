"""What goes wrong, in one line that says why and what to do: in what the user gave, in a run, in one image."""

import functools
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in what the user gave; its text is one line that says what was found, expected, and to be done.

    Whatever names it quotes, its text has no control characters; `args` keeps what was given.
    """

    exit_code = 2

    def __str__(self) -> str:
        return printable(super().__str__())


class MachineFailed(UserError):
    """What worked before works no more: a data worker, the disk with the images (EX_OSERR); nobody mistook anything."""

    exit_code = 71


class Ending(Exception):
    """A run ends early; its text is one line that says why and what to do."""

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


class BadImage(Exception):
    """An image that cannot be used; its text says why. It ends nothing: another one takes its place."""


BY_CODE = {kind.exit_code: kind for kind in (UserError, MachineFailed, Stopped, Diverged, NotSaved, Abandoned)}


def one_line_errors(main: Callable[..., int]) -> Callable[..., int]:
    """A command whose UserError is a line on stderr and its exit code."""

    @functools.wraps(main)
    def command(*args: object, **options: object) -> int:
        try:
            return main(*args, **options)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code

    return command


def printable(name: str) -> str:
    """A file name that is safe in a log line: control characters and undecodable bytes are escaped."""
    name = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def first_line(error: BaseException) -> str:
    """The beginning of an error's text; its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
