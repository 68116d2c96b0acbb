"""Checks a command of a page without doing its work: its own program parses it, bash reads it, or it is run."""

import argparse
import ast
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.page import ROOT, Command, Wrong


class Parsed(BaseException):
    """Raised by a program's parser when it has accepted the command line; no `except Exception` swallows it."""


def check(command: Command) -> None:
    """Nothing, when the command's program accepts it; Wrong when not, or when the kind of command is unknown."""
    program, *arguments = command.words
    try:
        if program in ("source", ".", "bash", "sh", "sbatch"):
            check_shell_script(command.folder / arguments[0], arguments[1:])
        elif program in ("python", "python3"):
            check_python(command.folder, arguments)
        elif program == "torchrun":
            from torch.distributed.run import get_args_parser

            launched = get_args_parser().parse_args(arguments)
            check_python(command.folder, [launched.training_script, *launched.training_script_args])
        elif program == "pytest":
            check_pytest(arguments)
        elif program == "ruff":
            run(["ruff", *arguments, *(["--check"] if arguments[0] == "format" else [])])
        elif program == "tensorboard":
            check_tensorboard(arguments)
        elif program == "git":
            if arguments[0] != "clone" or not 2 <= len(arguments) <= 3:
                raise Wrong("of git, only `git clone URL [FOLDER]` is known here")
        elif program == "export":
            if not all(re.match(r"\w+=", argument) for argument in arguments):
                raise Wrong("export without a value")
        else:
            raise Wrong(
                f"commands of the kind {program!r} are not known here: teach tests/helpers/commands.py to check them"
            )
    except SystemExit as ended:
        if ended.code:  # --help ends a parser with 0
            raise Wrong(f"{shlex.join(command.words)}: exit code {ended.code}") from ended
    except (Wrong, OSError, SyntaxError, ImportError, IndexError) as error:
        raise Wrong(f"{shlex.join(command.words)}: {error}") from error


def run(command: list[str]) -> None:
    """Runs a Python program of this environment in the repository's folder; a failure is Wrong."""
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    if result.returncode:
        raise Wrong(f"exit code {result.returncode}: {(result.stdout + result.stderr)[-2000:]}")


def check_shell_script(script: Path, arguments: list[str]) -> None:
    """The script is there, bash can read it, and the set-up accepts its options."""
    script.resolve(strict=True)
    calls = [["bash", "-n", script]]
    if script.name == "install_packages.sh":
        calls.append(["bash", script, *arguments, "--help"])
    for call in calls:
        result = subprocess.run(call, capture_output=True, text=True)
        if result.returncode:
            raise Wrong(result.stderr)


def check_python(folder: Path, arguments: list[str]) -> None:
    """The program's own parser accepts the arguments; nothing else of the program runs."""
    if arguments[0] == "-c":
        compile(arguments[1], "README", "exec")
    elif arguments[0] == "train.py":
        from pixpro.config import parse_args

        (folder / "train.py").resolve(strict=True)
        parse_args(arguments[1:])
    elif arguments[0] == "-m":
        if find_spec(arguments[1]) is None:
            raise Wrong(f"no module {arguments[1]}")
        until_parsed(lambda: runpy.run_module(arguments[1], run_name="__main__"), arguments[1:], folder)
    else:
        path = (folder / arguments[0]).resolve(strict=True)
        until_parsed(lambda: runpy.run_path(str(path), run_name="__main__"), arguments, path.parent)


def stop_after(parse: Callable) -> Callable:
    """`parse`, which afterwards raises Parsed."""

    def parse_and_stop(*args, **kwargs):
        parse(*args, **kwargs)
        raise Parsed

    return parse_and_stop


def until_parsed(program: Callable, argv: list[str], path: Path) -> None:
    """Runs `program` up to the point where its parser has accepted `argv`; never getting there is Wrong."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, stop_after(getattr(argparse.ArgumentParser, name)))
        patch.setattr(sys, "argv", argv)
        patch.syspath_prepend(path)
        try:
            program()
        except Parsed:
            return
    raise Wrong("the program parsed no command line")


def check_pytest(arguments: list[str]) -> None:
    """pytest knows the options, the paths are there, and markers are those of pyproject.toml."""
    if "-m" in arguments:
        declared = re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.M)
        expression = re.findall(r"\w+", arguments[arguments.index("-m") + 1])
        if unknown := set(expression) - {*declared, "not", "and", "or"}:
            raise Wrong(f"markers {unknown} are not declared")
    paths = [argument for argument in arguments if "/" in argument or argument.endswith(".py")]
    for path in paths:
        (ROOT / path.split("::")[0]).resolve(strict=True)
    parsed = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "--collect-only", "-q", *([] if paths else ["tests/golden"])],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if parsed.returncode not in (0, 5):  # 5: nothing collected
        raise Wrong(parsed.stdout + parsed.stderr)


def check_tensorboard(arguments: list[str]) -> None:
    """TensorBoard's parser accepts the arguments."""
    from tensorboard import default, program

    program.TensorBoard(default.get_plugins()).configure(["tensorboard", *arguments])


def check_names(source: str) -> None:
    """Every name that Python text takes from the package `pixpro` is there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pixpro":
            names = ", ".join(alias.name for alias in node.names)
            try:
                exec(f"from {node.module} import {names}", {})
            except ImportError as error:
                raise Wrong(str(error)) from error
