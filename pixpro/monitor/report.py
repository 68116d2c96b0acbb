"""`python -m pixpro report RUN`: one page about a run, which needs nothing but a browser."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pixpro.checkpoints.checkpoint import newest_first, reason
from pixpro.errors import UserError, one_line_errors, printable
from pixpro.images import open_images, sample_images
from pixpro.monitor.compare import DEFAULT, TITLES, curve, read_rows
from pixpro.visualize.ends import both_ends, end_pictures
from pixpro.visualize.figure import Panel, draw_chart
from pixpro.visualize.page import Picture, Section, Table, page

NAME = "report.html"
SHOWN, SAMPLE = 3, 16  # images that are drawn, and those of which BatchNorm's statistics are made
CURVES = (*DEFAULT, "images_per_second", "data_wait")
NUMBERS = ("loss", "agreement", "target_rank", "target_std", "positives", "images_per_second", "data_wait", "memory_gb")

Row = dict[str, Any]


def write_report(folder: Path, out: Path | None = None, images: Sequence[str] = ()) -> Path:
    """Write the page about the run in a folder; returns where. UserError when that is no run, or the disk is full.

    images: folders or archives to draw, in place of the run's own.
    """
    rows, settings = read_rows(folder), read_settings(folder)
    values = [(name, told(value)) for name, value in settings.items()]
    sections = [
        health_section(rows),
        scores_section(rows),
        curves_section(rows),
        ends_section(folder, settings, images),
        next_section(folder, rows),
        Section("Settings", table=Table(("setting", "value"), values), folded=True),
    ]
    out = out or folder / NAME
    title = f"{folder.resolve().name}: report of a run"
    text = page(title, headline(settings, rows), sections, "python -m pixpro report")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({reason(error)}); choose another --out") from None
    return out


def report_line(folder: Path) -> str:
    """Where the report of a finished run is, or why there is none: no reason to call the run failed."""
    try:
        return f"report: {write_report(folder)}"
    except UserError as error:
        return f"warning: no report was written: {error}"


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings in a run's config.json; UserError when there are none."""
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = reason(error) if isinstance(error, OSError) else "no JSON"
        raise UserError(f"{path}: cannot be read ({said}); give the output folder of a run") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds no settings; give the output folder of a run")
    return settings


def headline(settings: dict[str, Any], rows: Sequence[Row]) -> str:
    """What was trained, on what, and how far."""
    data, last = ", ".join(map(str, settings.get("data", []))), rows[-1]
    epoch = next((row["epoch"] for row in reversed(rows) if "epoch" in row), "?")
    return (
        f"{settings.get('loss')} on {settings.get('arch')}, on images of {data}, in batches of "
        f"{settings.get('batch_size')}: {last['step']} steps, epoch {epoch} of {settings.get('epochs')}."
    )


def told(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def first_and_last(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Title, first and last value of each number that was recorded."""
    curves = [(name, curve(rows, name)) for name in names]
    return [(TITLES.get(name, name), told(points[0][1]), told(points[-1][1])) for name, points in curves if points]


def health_section(rows: Sequence[Row]) -> Section:
    """What was said about the run, and its first and last numbers."""
    steps: dict[str, list[int]] = {}  # kind of remark -> when it was said
    last: dict[str, str] = {}
    for row in rows:
        for remark in row.get("remarks", ()):
            kind = str(remark).partition(":")[0]
            steps.setdefault(kind, []).append(row["step"])
            last[kind] = str(remark)
    said = [f"{last[kind]} (said {len(at)} times, last at step {at[-1]})" for kind, at in steps.items()]
    reports = [row for row in rows if "loss" in row]
    table = Table(("number", "first report", "last report"), first_and_last(reports, NUMBERS))
    return Section("Verdict", said or [f"Nothing looked wrong in {len(reports)} reports."], table=table)


def scores_section(rows: Sequence[Row]) -> Section:
    """What was measured between steps: before training, where the run recorded that, and last."""
    measured = [row for row in rows if "loss" not in row]
    names = list(dict.fromkeys(name for row in measured for name in row if name not in ("step", "epoch", "remarks")))
    if not names:
        return Section("Scores", ["None were measured: --val_data DIR makes train.py measure dense matching."])
    first, last = measured[0]["step"], measured[-1]["step"]
    heads: tuple[str, ...] = ("score", "untrained" if first == 0 else f"step {first}", f"step {last}")
    note = [] if first == 0 else ["What the untrained network scored was not recorded."]
    numbers = first_and_last(measured, names)
    if first == last:
        heads, numbers = heads[::2], [row[::2] for row in numbers]
    return Section("Scores", note, table=Table(heads, numbers))


def curves_section(rows: Sequence[Row]) -> Section:
    """A picture for each number that has a curve."""
    curves = {name: curve(rows, name) for name in CURVES}
    panels = [Panel(TITLES[name], [points]) for name, points in curves.items() if points]
    pictures = [Picture(draw_chart([panel]), f"Curve: {panel.title}") for panel in panels]
    return Section("Curves", pictures=[pictures])


def ends_section(folder: Path, settings: dict[str, Any], images: Sequence[str]) -> Section:
    """Pairs and dense features before and after training, or why there are none."""
    title = "Before and after training"
    try:
        drawn = sample(images or settings.get("val_data") or settings.get("data") or [])
        if not (checkpoints := newest_first(folder)):
            raise UserError(f"{folder} holds no checkpoint")
        networks = both_ends(settings, checkpoints[0], drawn)
        pictures = end_pictures(settings, networks, drawn[:SHOWN])
    except UserError as error:
        return Section(title, [f"No pictures: {error}.", "Other images: python -m pixpro report RUN --images DIR"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # settings of another version, or edited
        return Section(title, [f"No pictures: config.json makes no network here ({type(error).__name__}: {error})."])
    about = (
        "Three images that were held out, if the run had any. First, two views: cells of the same colour show the same "
        "place. Second, how like one cell of view 1 the cells of view 2 are: white frames are right, cyan is the "
        "nearest. Third, the cells' first three principal components as colours: like colours are like features."
    )
    trained = f"Before: made again from --seed {settings.get('seed')}. After: {checkpoints[0].name}."
    return Section(title, [about, trained], pictures)


def sample(roots: Sequence[str]) -> list[Tensor]:
    """A few images (3, H, W) uint8; UserError when there are none to be had."""
    found = list(sample_images(open_images(roots), SAMPLE))
    if not found:
        raise UserError("none of the images can be read")
    return found


def next_section(folder: Path, rows: Sequence[Row]) -> Section:
    """What to do now, as text and commands."""
    matching, weights = curve(rows, "matching"), folder.resolve() / "last.pth.tar"
    if any(row.get("remarks") for row in rows[-20:]):
        advice = "First do what the verdict says."
    elif len(matching) > 1 and matching[-1][1] <= matching[0][1]:
        advice = "Dense matching has not risen: train longer, and look at the curves of docs/what-is-normal.md."
    else:
        advice = "Measure the backbone, beside an untrained one, and hand it on."
    commands = [
        f"cd downstream && python evaluate.py {weights}",
        f"python -m pixpro visualize PHOTO.jpg --checkpoint {weights} --html",
        f"python -m pixpro export {weights} backbone.pth",
        f"cd downstream && python convert-pretrain-to-detectron2.py {weights} pixpro.pkl",
        f"python -m pixpro compare {folder} OTHER_RUN",
    ]
    return Section("What to do next", [advice], code=commands)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Exit code of the command: 2 for wrong input."""
    parser = argparse.ArgumentParser(
        prog="python -m pixpro report", description="One page about a run: settings, curves, scores, pictures."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder of a run")
    parser.add_argument("--out", type=Path, help=f"page to write (default: RUN/{NAME})")
    parser.add_argument("--images", nargs="+", default=(), metavar="PATH", help="what to draw (default: the run's own)")
    args = parser.parse_args(argv)
    print(f"wrote {printable(str(write_report(args.run, args.out, args.images)))}")
    return 0
