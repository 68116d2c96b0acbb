"""How a run ends is said once, by whichever process knows, and its exit code is the documented one."""

import pytest
import torch
from torch.distributed import HashStore

import train
from pixpro.errors import Stopped, UserError
from pixpro.run.starting import outcome
from pixpro.training.processes import Process


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
    assert outcome(raising(error), processes[first], 60) == 2
    assert capsys.readouterr().err == "error: image \\x1b[2J\\n is bad\n"
    assert outcome(raising(error), processes[1 - first], 60) == 2
    assert capsys.readouterr().err == ""


def test_what_all_agree_on_is_said_by_the_main_process(capsys):
    for process in reversed(two_processes()):
        error = process.common(UserError("all know"))
        assert outcome(raising(error), process, 60) == 2
        assert capsys.readouterr().err == ("error: all know\n" if process.is_main else "")


def test_an_early_end_is_no_error(capsys):
    assert outcome(raising(Stopped("saved")), two_processes()[1], 60) == 75
    assert capsys.readouterr().err == "saved\n"


def test_a_process_that_never_met_the_others_says_what_it_found(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train.main(["--data", "anywhere"]) == 2
    assert "RANK is '3'" in capsys.readouterr().err
