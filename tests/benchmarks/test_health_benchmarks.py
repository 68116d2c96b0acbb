"""The benchmarks around health: the cost of a report, and the runs that show what is normal."""

import json
import re

from benchmarks.monitor import health, normal_curves
from pixpro.config import parse_args


def test_the_cost_of_a_report_is_told(capsys):
    small = {"image_size": 32, "batch_size": 2, "hidden_dim": 8, "dim": 8, "repeats": 1, "log_every": 10}
    health.main([f"--{name}={value}" for name, value in small.items()])
    told = capsys.readouterr().out
    step, extra, every, share = re.search(
        r"step (\S+) ms, a report adds (\S+) ms; every (\d+) steps that is (\S+)%", told
    ).groups()
    assert every == "10" and float(step) > 0
    # The times are rounded to 0.1 ms.
    assert abs(float(share) / 100 - float(extra) / float(step) / 10) < 0.11 / float(step) / 10 * 2 + 1e-4


def test_the_runs_are_demos_that_differ_as_named():
    named = {name: parse_args(["--demo", *changes]) for name, changes in normal_curves.runs(2).items()}
    assert {name: config.seed for name, config in named.items() if "seed" in name} == {
        f"{method}, seed {seed}": seed for seed in (0, 1) for method in ("PixContrast", "PixPro")
    }
    assert all((config.loss == "pixpro") == name.startswith("PixPro") for name, config in named.items())
    for method in ("PixContrast", "PixPro"):
        large, usual = named[f"{method}, learning rate x 100"], named[f"{method}, seed 0"]
        assert large.lr_base == 100 * usual.lr_base and large.loss == usual.loss
    assert named["PixPro, no propagation, momentum 0"].momentum_base == 0


def test_the_table_tells_the_first_epoch_of_each_remark(tmp_path):
    rows = [
        {"step": 1, "epoch": 1, "loss": -2.0, "agreement": 0.5, "target_rank": 9.0, "target_std": 0.8},
        {
            "step": 2,
            "epoch": 2,
            "loss": -3.9,
            "target_rank": 1.1,
            "target_std": 0.1,
            "remarks": ["collapse: x", "no overlap: y"],
        },
        {
            "step": 3,
            "epoch": 3,
            "loss": -3.99,
            "agreement": 0.9975,
            "target_rank": 1.02,
            "target_std": 0.05,
            "remarks": ["collapse: x"],
        },
        {"step": 3, "matching": 0.2},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = normal_curves.table_row("a run", tmp_path)
    assert row == ["a run", "-3.99", "1.00", "1.0", "0.05", "collapse (epoch 2), no overlap (epoch 2)"]
