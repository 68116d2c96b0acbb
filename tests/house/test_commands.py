"""`python -m pixpro`: each small program is reached by its name, and a wrong name is one line."""

import subprocess
import sys

import pytest

from pixpro.__main__ import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_reached_by_its_name_and_calls_itself_so(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"python -m pixpro {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_names_every_command(name, capsys):
    assert main(["--help"]) == 0
    assert f"\n{name} " in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["chekc", "DIR"], ["a\x1b[31m"]])
def test_an_unknown_command_is_one_line_that_names_the_known_ones(argv, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "\x1b" not in err and all(name in err for name in COMMANDS)


def test_the_exit_code_is_the_commands(tmp_path):
    ended = subprocess.run([sys.executable, "-m", "pixpro", "check", str(tmp_path / "missing")], capture_output=True)
    assert ended.returncode == 2 and b"missing" in ended.stderr
