"""A dataclass of settings -> the command line that is made from it, whose complaints are one line -> its settings."""

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import field
from enum import Enum
from typing import Any, NoReturn, TypeVar, cast, get_args, get_origin

from pixpro.errors import UserError
from pixpro.method.timm_models import MAPS

Settings = TypeVar("Settings")


class OnResume(Enum):
    """What another value of a setting does to a run that goes on from a checkpoint."""

    REFUSED = "refused"  # shapes of tensors, or what the number of a step means, depend on it
    TRAINS = "trains"  # it takes effect from the next step on, and is named
    RUNS = "runs"  # it changes where, how fast or with what output is trained; the numbers stay, up to rounding
    UNUSED = "unused"  # it made the first weights, and those of the checkpoint are in their place


def setting(
    on_resume: OnResume,
    default: Any,
    help: str,
    choices: tuple | None = None,
    alias: str | None = None,
    low: float = -math.inf,
    high: float = math.inf,
    own: bool = False,
) -> Any:
    """A field of a dataclass of settings: default, help text, values or range it may take, a second name as a flag.

    own: whether each process may have its own value; where the main process alone uses it, its value counts.
    """
    assert isinstance(on_resume, OnResume), f"say first what {on_resume!r} does on resume"
    metadata: dict[str, object] = {"help": help, "choices": choices, "alias": alias, "low": low, "high": high}
    metadata |= {"on_resume": on_resume, "own": own}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def shared_settings(settings: Any) -> dict[str, Any]:
    """The settings that must be the same in all processes."""
    fields = dataclasses.fields(settings)
    return {spec.name: getattr(settings, spec.name) for spec in fields if not spec.metadata["own"]}


def on_resume(settings: Any) -> dict[str, str]:
    """What another value does to a run that is resumed, by the setting's name: refused, trains, runs or unused."""
    return {spec.name: spec.metadata["on_resume"].value for spec in dataclasses.fields(settings)}


def within(kind: type, low: float, high: float) -> Callable[[str], Any]:
    """A reader of numbers of a kind from low to high, for argparse."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # NaN is not
            names = {int: "a whole number", float: "a number"}
            raise argparse.ArgumentTypeError(f"{text!r} is not {names[kind]} from {low:g} to {high:g}")
        return value

    return read


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        self.exit(2, f"error: {message}; see python {self.prog} --help\n")


def build_parser(settings: type, *, prog: str, description: str) -> OneLineParser:
    """A command line with one flag per field of a dataclass of `setting`s, written with dashes or underscores."""
    parser = OneLineParser(
        prog=prog,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    for spec in dataclasses.fields(settings):
        kind = cast(Any, spec.type)  # a type and not its name: the annotations of settings are not postponed
        factory = spec.default_factory
        default = spec.default if factory is dataclasses.MISSING else factory()
        names = [f"--{spec.name}"]
        if "_" in spec.name:
            names.append(f"--{spec.name.replace('_', '-')}")
        if spec.metadata["alias"]:
            names.append(f"--{spec.metadata['alias']}")
        options: dict[str, Any] = {"dest": spec.name, "default": default, "help": spec.metadata["help"]}
        if spec.type is bool:
            options["action"] = "store_true"
        elif get_origin(spec.type) is list:
            element = get_args(spec.type)[0]
            options.update(type=element, nargs="+", metavar="PATH" if element is str else element.__name__.upper())
            options["choices"] = spec.metadata["choices"]
        else:
            ranged = kind if kind is str else within(kind, spec.metadata["low"], spec.metadata["high"])
            options.update(type=ranged, choices=spec.metadata["choices"])
            if spec.metadata["choices"] is None:
                options["metavar"] = kind.__name__.upper()
        parser.add_argument(*names, **options)
    return parser


def parse(
    settings: type[Settings],
    argv: list[str] | None,
    recipe: Callable[[argparse.Namespace], Mapping[str, Any]],
    *,
    prog: str,
    description: str,
) -> Settings:
    """The settings that a command line (None: this program's) asks for; exits with code 2 and one line if it is wrong.

    recipe: the defaults that what was given asks for, by name, where they differ from the fields' own.
    """
    parser = build_parser(settings, prog=prog, description=description)
    try:
        argv = spelled_out(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        parser.error(str(error))
    parser.set_defaults(**recipe(parser.parse_args(argv)))
    return settings(**vars(parser.parse_args(argv)))


def spelled_out(argv: list[str]) -> list[str]:
    """The command line with `--cells MAP` as what it is short for: `--neck stage` and the map's level."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--cells=") else [word])]
    if "--cells" not in words:
        return argv
    place = words.index("--cells")
    cells = "".join(words[place + 1 : place + 2])
    if cells not in MAPS:
        raise UserError(f"--cells {cells}: expected one of {', '.join(MAPS)}")
    if any(word.partition("=")[0] in ("--neck", "--levels") for word in words):
        raise UserError(f"--cells {cells} is short for --neck and --levels; give it or them")
    stage = ["--neck", "none"] if cells == MAPS[-1] else ["--neck", "stage", "--levels", cells[1:]]
    return words[:place] + stage + words[place + 2 :]
