"""`python -m pixpro COMMAND ...`: the small programs around a training, each with a --help of its own.

check DIR...      what is in a data set, what is bad in it, what the loss will find in it
export CKPT OUT   a checkpoint's backbone as a file that other programs read
compare RUN...    the curves of several runs in one picture
visualize ...     pictures of pairs and of dense features
report RUN        one page about a run: settings, curves, scores, pictures of both ends
"""

import importlib
import sys

from pixpro.errors import printable
from pixpro.run.output import lasting_output

COMMANDS = {
    "check": "pixpro.plan.check",
    "export": "pixpro.checkpoints.export",
    "compare": "pixpro.monitor.compare",
    "visualize": "pixpro.visualize.command",
    "report": "pixpro.monitor.report",
}


def main(argv: list[str] | None = None) -> int:
    """Hand the arguments to the command that the first one names; returns its exit code, 2 where there is none."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: python -m pixpro: expected a command ({known}), found {printable(name)!r}", file=sys.stderr)
        return 2
    with lasting_output():
        return importlib.import_module(COMMANDS[name]).main(rest)


if __name__ == "__main__":
    sys.exit(main())
