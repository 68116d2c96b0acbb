"""Curves of runs: what is read, that lines are where the numbers say, and files that are wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixpro.errors import UserError
from pixpro.monitor.compare import curve, main, read_rows, run_names
from pixpro.visualize.figure import COLOURS, DPI, WIDTH, Panel, draw_chart


def run(folder: Path, values: list) -> Path:
    folder.mkdir(parents=True)
    rows = [{"step": 10 * (i + 1), "loss": value, "lr": 0.1} for i, value in enumerate(values)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def coloured(image: Image.Image, colour: str) -> np.ndarray:
    """(N, 2) rows and columns of the pixels of a colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere((np.asarray(image) == rgb).all(axis=2))


def test_a_line_goes_through_its_points():
    """From (0, 0) up to (50, 1), half way down at 75, and back to 0 at 100."""
    pixels = coloured(draw_chart([Panel("loss", [[(0, 0), (50, 1), (100, 0)]])]), COLOURS[0])
    (top, left), (bottom, right) = pixels.min(axis=0), pixels.max(axis=0)
    assert right - left > 2.5 * DPI and bottom - top > 1.2 * DPI

    def height(x: float) -> float:
        column = left + (right - left) * x / 100
        return (bottom - pixels[np.abs(pixels[:, 1] - column) < 2][:, 0].mean()) / (bottom - top)

    assert [height(x) for x in (1, 25, 50, 75, 99)] == pytest.approx([0.02, 0.5, 1, 0.5, 0.02], abs=0.03)


def test_each_run_has_its_colour_in_the_panel_and_in_the_legend():
    chart = draw_chart([Panel("loss", [[(0, 0), (1, 1)], [(0, 1), (1, 1)]])], ["one", "_two"])
    for colour in COLOURS[:2]:
        rows = coloured(chart, colour)[:, 0]
        assert rows.min() < 0.25 * DPI < rows.max()
    assert draw_chart([Panel("loss", [[(0, 0)]])]).height < chart.height  # one run needs no legend


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(5, 1.0)],
        [(1, 2.0), (2, 2.0)],
        [(1, 0.0), (2, 0.0)],
        [(1, 1e30), (2, -1e30)],
        [(1, 1.0), (2, float("nan")), (3, float("inf"))],
    ],
)
def test_few_equal_and_extreme_values_are_drawn(points):
    assert draw_chart([Panel("x", [points])], ["run"]).size[0] == WIDTH * DPI


def test_many_names_wrap_in_the_legend():
    names = [f"output/a long name of a run {i}" for i in range(9)]
    few, many = (draw_chart([Panel("x", [[(0, 0), (1, 1)]] * count)], names[:count]) for count in (1, 9))
    assert many.height > few.height + 40


def test_rows_that_are_cut_or_foreign_are_passed_over(tmp_path):
    folder = run(tmp_path / "a", [1.0, None, 3.0])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('[1]\n"x"\n{"step": "9"}\n{"step": 40, "loss": tru')
    assert curve(read_rows(folder), "loss") == [(10, 1.0), (30, 3.0)]
    assert curve(read_rows(folder / "metrics.jsonl"), "matching") == []


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    paths = [tmp_path / "x" / "one", tmp_path / "x" / "two" / "deep" / "metrics.jsonl"]
    assert run_names(paths) == ["one", "two/deep"]
    assert run_names([tmp_path / "x"]) == ["x"]


def test_the_command_writes_a_small_png(tmp_path, capsys):
    runs = [str(run(tmp_path / name, [1.0, 0.5 + i, 0.25])) for i, name in enumerate(("a", "b"))]
    out = tmp_path / "curves.png"
    assert main([*runs, "--out", str(out)]) == 0 and str(out) in capsys.readouterr().out
    image = Image.open(out)
    assert image.format == "PNG" and image.width == 2 * WIDTH * DPI and out.stat().st_size < 100_000
    assert main([*runs, "--out", str(out), "--metrics", "lr", "--labels", "first", "second"]) == 0
    assert Image.open(out).width == WIDTH * DPI


@pytest.mark.parametrize("case", ["missing", "empty", "labels", "unwritable"])
def test_wrong_input_is_one_line_and_exit_code_2(case, tmp_path, capsys):
    folder = run(tmp_path / "a", [] if case == "empty" else [1.0])
    arguments = {
        "missing": [str(tmp_path / "nothing")],
        "empty": [str(folder)],
        "labels": [str(folder), "--labels", "x", "y"],
        "unwritable": [str(folder), "--out", str(tmp_path / "no" / "x.png")],
    }[case]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "x.png")]
    assert main([*arguments, *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and not (tmp_path / "x.png").exists()


def test_a_file_that_is_no_text_has_no_rows(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UserError, match="no rows"):
        read_rows(tmp_path)
