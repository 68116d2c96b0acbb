"""Reads a Markdown page: its fenced blocks, and the commands that its shell blocks and code spans call."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```[ ]*$", re.M)


class Wrong(Exception):
    """What is wrong with a page or one of its commands."""


class Block(NamedTuple):
    """A fenced block: what stands after the opening fence, and its lines without their indentation."""

    info: str
    text: str


class Command(NamedTuple):
    """The words of one command, without environment settings and redirections, and the folder it is called in."""

    words: list[str]
    folder: Path


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, also those within lists."""
    return [
        Block(info.strip(), re.sub(f"^{indent}", "", text, flags=re.M)) for indent, info, text in FENCED.findall(page)
    ]


def inline_commands(page: str) -> list[str]:
    """The code spans outside of the blocks that call one of our programs; an ellipsis in them is left out."""
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCED.sub("", page))
    calls = r"(\w+=\S+ )*(python3?|torchrun|source|bash|sbatch) (.*\.py|.*\.sh|-m )"
    return [re.sub(r" (\.\.\.|…)", "", span) for span in spans if re.match(calls, span)]


def commands(text: str) -> list[Command]:
    """The commands of a shell text in order; `cd` is followed, also into a clone of this repository."""
    syntax = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    if syntax.returncode:
        raise Wrong(f"bash cannot read {text!r}: {syntax.stderr}")
    found: list[Command] = []
    folder = ROOT
    for line in text.replace("\\\n", " ").splitlines():
        for words in simple_commands(line):
            if words[0] == "cd":
                folder = ROOT if words[1] in clones(found) else folder / words[1]
                if not folder.is_dir():
                    raise Wrong(f"cd {words[1]}: no such folder in this repository")
            else:
                found.append(Command(words, folder))
    return found


def simple_commands(line: str) -> list[list[str]]:
    """The words of each command of a line, between `&&`, `||`, `|`, `;` and `&`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for token in lexer:
        if not token.strip("<>&") and set(token) & set("<>"):
            if found[-1][-1:] in (["1"], ["2"]):  # the stream of a redirection, as in 2>file
                found[-1].pop()
            next(lexer, None)
        elif not token.strip(";|&"):
            found.append([])
        elif found[-1] or not re.match(r"\w+=", token):  # not an environment setting before a command
            found[-1].append(token)
    return [words for words in found if words]


def clones(found: list[Command]) -> set[str]:
    """The names of the folders that the `git clone` among these commands make."""
    return {Path(words[-1]).name.removesuffix(".git") for words, _ in found if words[:2] == ["git", "clone"]}
