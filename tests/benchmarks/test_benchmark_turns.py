"""Contenders take turns: each round another begins, and one that fails leaves the others going."""

import pytest
import torch

from benchmarks.measuring.timing import by_turns
from benchmarks.steps import rounds as step_rounds
from benchmarks.steps import turns as step_turns
from benchmarks.steps.contenders import CONTENDERS
from benchmarks.steps.earlier import Earlier
from tests.helpers.tiny_case import tiny_case


def test_an_import_that_fails_in_our_own_row_is_an_error():
    with pytest.raises(ImportError):
        step_turns.attempt(CONTENDERS["ours"], lambda: __import__("no_such_module"))


def test_a_contender_that_runs_out_of_memory_during_the_rounds_keeps_the_others(monkeypatch):
    turns = iter([0, 1])
    built = CONTENDERS["floor"].build(tiny_case())

    def fails_later():
        if next(turns) == 1:
            raise torch.OutOfMemoryError("now")
        return built.run()

    monkeypatch.setitem(
        CONTENDERS, "ours", CONTENDERS["ours"]._replace(build=lambda case: built._replace(run=fails_later))
    )
    rows = step_rounds.measure(tiny_case(), ["ours", "floor"], 1, step_turns.Here)
    assert rows[0]["reason"] == "out of memory" and rows[1]["ms"] > 0 and rows[1]["time / ours"] is None


def test_contenders_in_processes_of_their_own_take_turns_and_end():
    with step_turns.contestants(["floor", "floor_encoder"], tiny_case(), step_turns.Apart) as ready:
        turns = [each.turn() for each in ready.values()]
        processes = [each.process for each in ready.values()]
        assert all(process.is_alive() for process in processes)
    assert all(turn.seconds > 0 and turn.reason == "" for turn in turns)
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_contender_whose_process_ends_is_an_error_of_one_line():
    with step_turns.contestants(["floor"], tiny_case(), step_turns.Apart) as ready:
        ready["floor"].process.kill()
        with pytest.raises(SystemExit, match="exit code -9"):
            ready["floor"].turn()


def test_what_trains_as_train_py_does_keeps_freed_memory_and_the_others_do_not():
    keeping = {name for name, contender in CONTENDERS.items() if contender.keeps_memory}
    joint = {"apart", "together", "compiled_together", "compiled_graphs"}
    assert keeping == {"ours", "ours_float32", "compiled", "official_same", "floor", "floor_encoder"} | joint


def test_turns_begin_with_another_task_each_round_and_leave_the_first_out():
    order = []
    tasks = {name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}
    assert by_turns(tasks, 2) == {"a": [6.0, 8.0], "b": [4.0, 9.0], "c": [5.0, 7.0]}
    assert "".join(order) == "abcbcacab"


def test_an_earlier_checkout_takes_turns_in_a_process_that_knows_nothing_of_this_one(tmp_path):
    """The checkout here is a small one: it tells whose code ran, and answers as `benchmarks/steps/turns.py` does."""
    (tmp_path / "pixpro").mkdir()
    (tmp_path / "pixpro" / "__init__.py").write_text("WHOSE = 'the earlier one'\n")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "step.py").touch()
    (tmp_path / "benchmarks" / "contenders.py").write_text("def make_case(**settings): return settings\n")
    (tmp_path / "benchmarks" / "step_turns.py").write_text(EARLIER_TURNS)
    rows = step_rounds.measure(tiny_case(), ["floor"], 2, step_turns.Apart, tmp_path)
    assert [row["name"] for row in rows] == ["floor", "before"]
    assert rows[1]["ms"] == 4000 and rows[1]["images/s"] == 1  # four images, a second each
    assert rows[0]["time / ours"] is None


def test_a_folder_that_is_no_checkout_is_an_error_of_one_line(tmp_path):
    with pytest.raises(SystemExit, match="name a checkout of this project"):
        Earlier(tmp_path, {})


EARLIER_TURNS = """
from typing import NamedTuple
import pixpro
class Turn(NamedTuple):
    seconds: float
    reason: str
def _serve(name, settings, connection):
    connection.send("" if pixpro.WHOSE == "the earlier one" and name == "ours" else "another project's code")
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(Turn(float(settings["batch_size"]), ""))
"""
