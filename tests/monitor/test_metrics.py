"""Numbers arrive in metrics.jsonl, TensorBoard and the console: a bar in a terminal, plain lines elsewhere."""

import io
import json
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixpro.monitor.console import Console, duration, numbers_line
from pixpro.monitor.metrics import Metrics
from pixpro.monitor.usage import Speed


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when told."""
    now = [100.0]
    monkeypatch.setattr("pixpro.monitor.console.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def console(stream, monkeypatch, term: str = "xterm", first_step: int = 0) -> Console:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "100")
    return Console(first_step, 200, 100, stream)


def test_rows_and_remarks_are_in_the_file_and_on_the_board(tmp_path):
    metrics = Metrics(tmp_path, 0, 10)
    metrics.write(5, {"loss": -1.5, "grad_norm": math.inf}, ["collapse: start again"])
    metrics.write(6, {"loss": -1.6})
    metrics.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 5, "loss": -1.5, "grad_norm": None, "remarks": ["collapse: start again"]},
        {"step": 6, "loss": -1.6},
    ]
    board = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in board.Scalars("loss")] == [5, 6]
    assert [event.value for event in board.Scalars("loss")] == pytest.approx([-1.5, -1.6])
    tag = next(tag for tag in board.Tags()["tensors"] if tag.startswith("remarks"))
    assert board.Tensors(tag)[0].tensor_proto.string_val[0] == b"collapse: start again"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ]
    + [(86399, "1 d 0 h"), (86400 * 3 + 3600 * 4, "3 d 4 h"), (-5, "0 s")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("stream", "term"), [(io.StringIO, "xterm"), (Terminal, "dumb")])
def test_pipes_and_dumb_terminals_get_plain_lines(stream, term, monkeypatch, clock):
    out = stream()
    console_ = console(out, monkeypatch, term)
    for number in range(1, 21):
        clock[0] += 1.5
        console_.step(number)
    console_.report(20, {"loss": -2.0, "images_per_second": 123.4})
    console_.line("warning: something")
    console_.close()
    assert out.getvalue() == (
        "epoch 1/2  step 20/200  loss -2.000  123 images/s  ETA 4 min 30 s (epoch 2 min 00 s)\nwarning: something\n"
    )


def test_without_TERM_lines_are_plain(monkeypatch):
    monkeypatch.delenv("TERM", raising=False)
    out = Terminal()
    console_ = Console(0, 10, 5, out)
    for number in range(1, 11):
        console_.step(number)
    console_.close()
    assert out.getvalue() == ""


def screen(written: str) -> list[str]:
    """The lines that a terminal shows of what was written to it, without spaces at their ends."""
    lines, column = [[]], 0
    for character in written:
        if character == "\n":
            lines.append([])
            column = 0
        elif character == "\r":
            column = 0
        else:
            lines[-1][column : column + 1] = [character]
            column += 1
    return ["".join(line).rstrip() for line in lines]


def test_a_terminal_gets_a_bar_below_its_lines(monkeypatch, clock):
    out = Terminal()
    console_ = console(out, monkeypatch)
    for number in (1, 50):
        clock[0] = 100 + 0.04 * number
        console_.step(number)
    bar = screen(out.getvalue())[0]
    assert bar.endswith("  25%  epoch 1/2  step 50/200  ETA 6 s (epoch 2 s)")
    drawn, rest = bar[: bar.index("  25%")], 99 - len("  25%  epoch 1/2  step 50/200  ETA 6 s (epoch 2 s)")
    assert len(bar) <= 99 and drawn.count("#") == pytest.approx(rest / 4, abs=1)
    console_.line("a line")
    assert screen(out.getvalue()) == ["a line", bar]
    console_.close()
    assert screen(out.getvalue()) == ["a line", ""]


def test_nothing_is_drawn_before_the_first_step(monkeypatch, clock):
    out = Terminal()
    console(out, monkeypatch).line("what is going to happen")
    assert out.getvalue() == "what is going to happen\n"


def test_the_bar_is_drawn_ten_times_a_second_at_most(monkeypatch, clock):
    out = Terminal()
    console_ = console(out, monkeypatch)
    for number in range(1, 201):
        clock[0] += 0.01
        console_.step(number)
    drawn = [text for text in out.getvalue().split("\r") if "step" in text]
    assert 15 <= len(drawn) <= 20 and len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("columns", [1, 20, 60, 80, 200])
def test_the_bar_never_fills_the_last_column(columns, monkeypatch, clock):
    out = Terminal()
    console_ = console(out, monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    for number in (1, 100, 200):
        clock[0] += 1
        console_.step(number)
    assert max(len(line) for line in out.getvalue().split("\r")) < max(columns, 2)


def test_the_time_left_follows_the_speed_of_late(monkeypatch, clock):
    """A machine that has become four times slower takes four times as long for the rest."""
    console_ = Console(0, 10_000, 100, io.StringIO())
    for number in range(1, 2001):
        clock[0] += 1
        console_.step(number)
    assert console_.time_left(2000) == f"ETA {duration(8000)}"
    for number in range(2001, 2301):
        clock[0] += 4
        console_.step(number)
    assert console_.pace.each == pytest.approx(4, rel=0.05)  # the mean since the start is 1.4
    assert "ETA 8 h" in console_.time_left(2300)  # 7700 steps of 4 s are 8 h 33 min


def test_one_slow_step_does_not_change_the_time_left_much(monkeypatch, clock):
    console_ = Console(0, 10_000, 100, io.StringIO())
    for number in range(1, 1001):
        clock[0] += 30 if number == 1000 else 1
        console_.step(number)
    assert console_.pace.each < 1.3


def test_a_resumed_run_is_timed_from_where_it_started(monkeypatch, clock):
    console_ = console(io.StringIO(), monkeypatch, first_step=150)
    clock[0] += 10
    assert console_.time_left(160) == "ETA 40 s"


def test_epochs_and_steps_are_counted_from_1(monkeypatch, clock):
    console_ = console(io.StringIO(), monkeypatch)
    assert [console_.place(number).split("  ")[0] for number in (1, 100, 101, 200)] == [
        *["epoch 1/2"] * 2,
        *["epoch 2/2"] * 2,
    ]


def test_numbers_have_names_and_units_and_those_without_a_name_are_left_out():
    line = numbers_line({"agreement": 0.5, "data_wait": 0.031, "memory_gb": 3.21, "trust_min": 4, "loss": math.nan})
    assert line == "loss nan  agreement 0.50  data wait 3%  3.2 GB"


def test_speed_is_the_mean_since_the_last_reading():
    speed = Speed(batch_size=8)
    speed.note(2.0, 0.5)
    speed.note(6.0, 1.5)
    assert speed.read() == {"images_per_second": 2.0, "data_wait": 0.25}
    speed.note(1.0, 0.0)
    assert speed.read() == {"images_per_second": 8.0, "data_wait": 0.0}
