"""The benchmark of the input pipeline runs and reports every figure it promises."""

import json

from benchmarks import data
from benchmarks.pipeline import photos


def test_a_quick_run_reports_every_figure(tmp_path, capsys):
    assert data.main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    for start in ("worker: official", "worker: ours", "worker: decode alone", "worker: ours / decode alone"):
        assert any(what.startswith(start) for what in rows)
    for start in ("end to end: ours", "colours on the CPU", "colours on the GPU", "3000 names, later", "growth per"):
        assert any(what.startswith(start) for what in rows)
    assert all(what in capsys.readouterr().out for what in ["machine"])


def test_the_drawn_files_are_the_same_everywhere_and_of_imagenet_s_size(tmp_path):
    first, again = (photos.write(tmp_path / name, 3) for name in "ab")
    for path in sorted(first.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes()
        assert 80_000 < path.stat().st_size < 120_000
