"""The one exception that means: the user's input is wrong, and here is what to do."""


class UserError(Exception):
    """A mistake in what the user gave; its text is one line that says what was found, expected, and to be done.

    Whatever names it quotes, its text has no control characters; `args` keeps what was given.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(name: str) -> str:
    """A file name that is safe in a log line: control characters and undecodable bytes are escaped."""
    name = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
