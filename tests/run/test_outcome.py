"""How a run ends is said once, by whichever process knows, and its exit code is the documented one."""

import contextlib
import io

import pytest
import torch
from torch.distributed import HashStore

import train
from pixpro.errors import UserError
from pixpro.run.outcome import outcome
from pixpro.training.distributed import Process
from pixpro.training.endings import Stopped


def raising(error: Exception):
    def function() -> None:
        raise error

    return function


def two_processes() -> list[Process]:
    store = HashStore()
    return [Process(rank, 2, 2, torch.device("cpu"), store) for rank in range(2)]


@pytest.mark.parametrize("first", [0, 1])
def test_wrong_input_that_a_process_finds_is_said_by_it_and_not_again(first, capsys):
    processes = two_processes()
    error = UserError("image \x1b[2J\n is bad")
    assert outcome(raising(error), processes[first]) == 2
    assert capsys.readouterr().err == "error: image \\x1b[2J\\n is bad\n"
    assert outcome(raising(error), processes[1 - first]) == 2
    assert capsys.readouterr().err == ""


def test_an_early_end_is_no_error(capsys):
    assert outcome(raising(Stopped("saved")), two_processes()[1]) == 75
    assert capsys.readouterr().err == "saved\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_wrong_command_line_of_one_process_alone_ends_all_with_its_line(rank, monkeypatch, tmp_path):
    processes = two_processes()
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr(train.distributed, "join", lambda timeout: processes[rank])
    processes[rank].store.add("command line/arrived", 1)  # the other one, which found nothing wrong
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        code = train.main(["--data", str(tmp_path), "--save_every", "5", "--output_dir", str(tmp_path / "out")])
    assert code == 2
    assert error.getvalue().startswith("error: ") and error.getvalue().count("\n") == 1 and "'5'" in error.getvalue()
    assert processes[0].store.check(["command line/mistake"])  # what the other one raises


def test_a_process_that_never_met_the_others_says_what_it_found(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train.main(["--data", "anywhere"]) == 2
    assert "RANK is '3'" in capsys.readouterr().err
