"""evaluate.py as a program: every score with its spread for every network, and wrong input in one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from downstream import evaluate
from downstream.probes.score_table import as_json, as_table
from pixpro import PixPro
from pixpro.scenes import write_scenes
from tests.helpers import pictures

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "voc", 8, seed=1, held_out=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "last.pth.tar"
    torch.save({"model": PixPro("resnet18", hidden_dim=8, dim=4).state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def colour_classes(tmp_path_factory):
    return pictures.colour_classes(tmp_path_factory.mktemp("classes"))


def test_tables_show_mean_and_sample_deviation():
    scores = {"dense matching": {"a": [0.5, 0.7], "untrained": [0.25]}}
    assert re.search(r"dense matching +60\.0 ± 14\.1 +25\.0", as_table(scores))
    record = as_json(scores)["dense matching"]
    assert record["a"]["mean"] == pytest.approx(0.6) and record["a"]["std"] == pytest.approx(0.1 * 2**0.5)
    assert record["untrained"] == {"mean": 0.25, "std": None, "values": [0.25]}


def test_everything_is_measured_for_every_network_from_another_folder(scenes, checkpoint, colour_classes, tmp_path):
    """As users run it: from inside downstream/, nothing installed."""
    other = tmp_path / "last.pth.tar"
    other.write_bytes(checkpoint.read_bytes())
    output = tmp_path / "scores.json"
    command = [sys.executable, "-W", "ignore", "evaluate.py", checkpoint, "--compare", other, "--seeds", "2"]
    command += ["--images", scenes / "held_out", "--classes", colour_classes, "--masks", scenes]
    command += ["--image-size", "64", "--dense-size", "64", "--official-linear", "1", "--output", output]
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # two threads on a busy machine wait for each other
    done = subprocess.run(list(map(str, command)), cwd=ROOT / "downstream", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    tasks = {"dense matching", "image k-NN", "image linear", "image linear, official", "dense k-NN", "dense linear"}
    assert set(record["scores"]) == tasks
    for networks in record["scores"].values():
        assert set(networks) == {str(checkpoint), str(other), "untrained"}
        assert networks[str(checkpoint)] == networks[str(other)]
        assert all(0 <= value <= 1 for network in networks.values() for value in network["values"])
        assert len(networks["untrained"]["values"]) == 2
    assert record["arch"] == "resnet18" and 0 < record["matching_chance"] < 1
    assert all(task in done.stdout for task in tasks)


def test_without_data_the_sample_scenes_are_used(checkpoint, scenes, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "sample_scenes", lambda: scenes)
    arguments = [str(checkpoint), "--seeds", "1", "--image-size", "64", "--dense-size", "64"]
    assert evaluate.main(arguments) == 0
    first = capsys.readouterr().out
    assert "dense matching" in first and "dense k-NN" in first and "image" not in first
    assert evaluate.main(arguments) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds 0"),
        (["--images", "none"], "not a folder"),
        (["--classes", "none"], "not a folder"),
        (["--masks", "none"], "ImageSets"),
        (["--official-linear", "5"], "--classes"),
        (["--output", "none/scores.json"], "no folder none"),
        (["--device", "cuda:99"], "CUDA"),
        (["--device", "cpu", "--amp", "fp16"], "--amp fp16 needs a GPU"),
        (["--arch", "resnet50"], "resnet18"),
    ],
)
def test_wrong_input_is_one_line_with_code_2(checkpoint, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(checkpoint), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and message in captured.err
    assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_is_one_line_with_code_2(tmp_path, capsys):
    assert evaluate.main([str(tmp_path / "none.pth")]) == 2
    assert "none.pth" in capsys.readouterr().err
