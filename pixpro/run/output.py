"""Standard output and errors that outlast their readers: a pipe that ends, a terminal that goes away, a full disk."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)  # nobody will read this any more


class LastingStream:
    """A text stream that never fails: what cannot be written is dropped, a reader that has gone is none any more."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        with self._lasting():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lasting():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in GONE:
                discard_from_now_on(self._stream.fileno())
                with contextlib.suppress(OSError):  # the other one may have gone with it
                    print(f"{self._name} has no reader any more ({error.strerror}); going on without", file=sys.stderr)


def discard_from_now_on(descriptor: int) -> None:
    """Let a file descriptor lead nowhere, so that nothing written to it can fail."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """A region in which printing never fails; streams that were closed at the start lead nowhere."""
    before = sys.stdout, sys.stderr
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would take its number, and get what is printed
            discard_from_now_on(descriptor)
    out, err = sys.stdout or open(1, "w", closefd=False), sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = LastingStream(out, "standard output"), LastingStream(err, "standard error")
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before
