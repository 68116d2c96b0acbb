"""The table of scores over several runs, and what it says when there is no run."""

import pytest

from benchmarks.monitor import scores


def test_a_row_has_mean_spread_and_number_of_runs():
    table = scores.table(
        {
            "dense matching": {"PixPro": [0.5, 0.6, 0.7], "untrained": [0.25]},
            "k-NN": {"PixPro": [0.1, 0.1, 0.1], "untrained": [0]},
        }
    )
    head, rule, *rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    assert head == ["", "", "dense matching", "k-NN", ""] and not "".join(rule).strip("-")
    assert rows == [["", "PixPro (3)", "60.0 ± 10.0", "10.0 ± 0.0", ""], ["", "untrained (1)", "25.0", "0.0", ""]]


def test_runs_that_are_not_there_are_named(capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        scores.main(["--runs", f"PixPro={tmp_path}/nothing*"])
    assert "nothing*" in capsys.readouterr().err
