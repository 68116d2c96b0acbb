"""Hours follow from measured numbers by the arithmetic shown, and the page shows what the data file says."""

import copy
import json
import math
import re
from pathlib import Path

import pytest

from benchmarks import hours as program
from benchmarks.scaling.hours_page import Machine, arithmetic, cores_to_feed, fill, hours, hours_table, sections
from pixpro.errors import UserError

ROOT = Path(__file__).parents[2]
MEASURED = json.loads((ROOT / "benchmarks" / "scaling" / "measured.json").read_text())
PAGE = (ROOT / "docs" / "hours.md").read_text()
ROW = {"hardware": "a", "arch": "resnet50", "image_size": 224, "batch": 4, "images_per_second": None, "devices": 1}


def result(device: str = "CPU") -> dict:
    """A file of benchmarks/train.py: 1 rank, 2 ranks, and, on a CPU, 1 rank with both cores."""
    about = {"hardware": "Chip", "device": device, "arch": "resnet50", "image_size": 224}
    rows = [
        {"ranks": 1, "cores": 1, "batch": 4, "images_per_second": [2.0, 1.9, 2.1], "efficiency": [1.0, 1.0, 1.0]},
        {"ranks": 2, "cores": 2, "batch": 4, "images_per_second": [3.6, 3.5, 3.7], "efficiency": [0.9, 0.8, 1.0]},
        {"ranks": 1, "cores": 2, "batch": 8, "images_per_second": [3.8, 3.7, 3.9], "efficiency": None},
    ]
    return {"about": about, "rows": rows if device == "CPU" else rows[:2]}


def test_hours_of_hand_computed_cases():
    assert hours(614, 100) == pytest.approx(57.96, abs=0.005)  # 128,116,700 / 614 = 208,659 s
    assert hours(1281167 / 3600, 1) == pytest.approx(1)
    assert hours(500, 400) == pytest.approx(284.70, abs=0.005)  # 512,466,800 / 500 = 1,024,934 s


def test_the_slower_of_devices_and_loader_sets_the_speed():
    assert Machine(500, 8, 0.95).rate == pytest.approx(3800)
    assert Machine(500, 8, 0.95, 431, 8).rate == 3448
    assert Machine(500, 8, 0.95, 431, 9).rate == pytest.approx(3800)
    assert any(line.endswith("data: the limit") for line in arithmetic(Machine(500, 8, 0.95, 431, 8)))
    assert any(line.endswith("data: enough") for line in arithmetic(Machine(500, 8, 0.95, 431, 9)))


@pytest.mark.parametrize(("speed", "cores"), [(1, 1), (431, 1), (432, 2), (862, 2), (3200, 8)])
def test_cores_that_feed_a_gpu(speed, cores):
    assert cores_to_feed(speed, 431) == cores


def test_the_page_shows_what_the_data_file_says():
    assert fill(PAGE, sections(MEASURED)) == PAGE


def test_a_figure_that_changes_in_the_data_file_changes_the_page():
    other = copy.deepcopy(MEASURED)
    other["rows"][0]["images_per_second"] *= 2
    other["data"]["images_per_second_per_core"] = 100
    changed = fill(PAGE, sections(other))
    assert "28.98 h" in changed and re.search(r"\| 3,200 +\| 32 +\|", changed) and changed != PAGE
    assert fill(changed, sections(MEASURED)) == PAGE


def test_the_page_s_own_sentences_agree_with_the_data_file():
    published = MEASURED["rows"][0]
    assert published["images_per_second"] * published["devices"] == 614 == round(1281167 * 100 / (58 * 3600))
    assert "= 614 images per second, or 76.75 for each GPU" in PAGE and published["images_per_second"] == 76.75
    per_core = MEASURED["data"]["images_per_second_per_core"]
    assert f"One core prepares {per_core} images per second" in PAGE
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    assert re.search(rf"^\| end to end through the loader: ours \| [\d.]+ \| {per_core} \|", results, re.M)


def test_what_was_not_measured_says_so():
    line = hours_table([ROW])[2]
    assert line.count("not run") == 5 and not re.search(r"\d h", line)


def test_a_page_without_a_place_for_a_table_is_refused():
    with pytest.raises(UserError, match="no place between <!-- begin hours -->"):
        fill(PAGE.replace("<!-- begin hours -->", ""), sections(MEASURED))


def test_measured_rows_take_the_place_of_those_that_were_not_run():
    measured = {"rows": [{**ROW, "hardware": "Chip, 2 cores, 2 ranks"}, {**ROW, "hardware": "another"}]}
    program.take(measured, result())
    found = {row["hardware"]: row for row in measured["rows"]}
    assert list(found) == ["Chip, 2 cores, 2 ranks", "another", "Chip, 1 core, 1 rank", "Chip, 2 cores, 1 rank"]
    several = found["Chip, 2 cores, 2 ranks"]
    assert (several["images_per_second"], several["devices"], several["efficiency"]) == (2.0, 2, 0.9)
    assert found["Chip, 2 cores, 1 rank"]["images_per_second"] == 3.8
    assert found["another"]["images_per_second"] is None
    assert "3.6" in [cell.strip() for cell in hours_table([several])[2].split("|")]


def test_gpus_are_counted_by_ranks():
    measured = {"rows": []}
    program.take(measured, result("GPU"))
    assert [row["hardware"] for row in measured["rows"]] == ["1 x Chip", "2 x Chip"]


@pytest.mark.parametrize("wrong", [[], {}, {"about": {}, "rows": []}, {"about": None, "rows": [1]}, 3])
def test_a_file_of_something_else_is_refused(wrong):
    with pytest.raises(UserError, match="benchmarks/train.py --json"):
        program.take({"rows": []}, wrong)


def test_the_program_takes_a_result_into_file_and_page(tmp_path, monkeypatch, capsys):
    for name, text in (("MEASURED", json.dumps(MEASURED)), ("PAGE", PAGE), ("result", json.dumps(result()))):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(program, name, tmp_path / name, raising=False)
    assert program.main(["--take", str(tmp_path / "result")]) == 0
    # 128,116,700 images at 3.6 a second are 9886 hours.
    assert re.search(r"\| Chip, 2 cores, 2 ranks +\|", (tmp_path / "PAGE").read_text())
    assert "9,886 h" in capsys.readouterr().out
    (tmp_path / "result").write_text("no JSON")
    assert program.main(["--take", str(tmp_path / "result")]) == 2
    assert "cannot be read as JSON" in capsys.readouterr().err


def test_the_program_shows_the_arithmetic_of_given_numbers(capsys):
    assert program.main(["--images_per_second", "76.75", "--devices", "8"]) == 0
    assert "76.75 images/s per device x 8 x efficiency 1.00 = 614 images/s" in (told := capsys.readouterr().out)
    assert "1281167 images x 100 epochs / 614 images/s / 3600 = 57.96 h" in told
    for wrong in ("0", "-1", "nan", "inf", "x"):
        with pytest.raises(SystemExit):
            program.main(["--images_per_second", wrong])
    assert math.inf == Machine(1).prepared
