"""The one exception that means: the user's input is wrong, and here is what to do."""


class UserError(Exception):
    """A mistake in what the user gave; its text is one line that says what was found, expected, and to be done."""
