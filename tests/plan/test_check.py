"""The look at a data set before training: counts, sizes, bad files, expected pairs."""

import io
import itertools
import random
import re
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from pixpro.data.views import draw_crop
from pixpro.images import open_images
from pixpro.plan.check import expected_pairs, main, scan
from tests.helpers import pictures


def test_a_scan_finds_sizes_and_bad_files(tmp_path):
    for i, (height, width) in enumerate([(20, 30), (40, 40), (35, 70)]):
        (tmp_path / f"{i}.png").write_bytes(pictures.encoded(pictures.texture(height, width), "PNG"))
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    report = scan(open_images([tmp_path]))
    assert (report.heights.tolist(), report.widths.tolist()) == ([20, 40, 35], [30, 40, 70])
    assert report.encoded.tolist() == [(tmp_path / f"{i}.png").stat().st_size for i in range(3)]
    assert list(report.bad) == [str(tmp_path / "bad.jpg")]


def test_the_command_prints_what_it_found(tmp_path, capsys):
    root = pictures.folder(tmp_path / "data", 12)
    assert main([str(root), "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert told(printed)["images"] == "12 in 1 place(s): 12 .jpg" and told(printed)["bad files"] == "0 (0.00%)"
    assert "--distance image" in printed and "--distance pixel" in printed
    (root / "003.jpg").write_bytes(b"")
    assert main([str(root), "--workers", "1"]) == 1
    assert f"{root}/003.jpg: the file is empty" in capsys.readouterr().out


def told(printed: str) -> dict[str, str]:
    """What the rows say, by the words they begin with; those below a row, without such words, are left out."""
    rows = [re.split(" {2,}", line, maxsplit=1) for line in printed.splitlines()]
    return {what: figure for what, figure in rows if what}


def test_members_of_one_name_are_counted_each(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for data in (b"junk", b"", b"junk"):
            info = tarfile.TarInfo("1.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    name = f"{tmp_path}/x.tar/1.jpg"
    assert list(scan(open_images([tmp_path / "x.tar"])).bad) == [name, f"{name} (image 1)", f"{name} (image 2)"]


def test_pictures_of_more_than_8_bits_are_counted_with_their_range(tmp_path, capsys):
    for i in range(23):
        Image.fromarray(np.linspace(i, 4000, 400, dtype=np.uint16).reshape(20, 20)).save(tmp_path / f"{i:02}.png")
    assert main([str(tmp_path), "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert told(printed)["scaled"] == "23 of more than 8 bits a sample, each by"
    lines = [line.strip() for line in printed.splitlines()]
    last = lines.index(f"{tmp_path}/19.png: the range that it uses, 19 to 4000")
    assert lines[last + 1] == "and 3 more"
    assert "20.png" not in printed and told(printed)["decoder"].startswith("JPEG by ")


def test_a_data_set_of_bad_files_only_is_reported_not_crashed_on(tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"junk")
    assert main([str(tmp_path), "--workers", "0"]) == 1
    assert told(capsys.readouterr().out)["bad files"] == "1 (100.00%)"


def test_nothing_to_scan_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def slow_share(height: int, width: int, draws: int) -> float:
    """Share of positive pairs by loops from the definition, in pixels."""
    rng, share = random.Random(99), 0.0
    for _ in range(draws):
        views = []
        for _ in range(2):
            top, left, h, w = draw_crop(rng, height, width)
            xs = [left - 0.5 + (u + 0.5) * w / 7 for u in range(7)]
            ys = [top - 0.5 + (v + 0.5) * h / 7 for v in range(7)]
            views.append((list(itertools.product(xs, ys)), ((w / 7) ** 2 + (h / 7) ** 2) ** 0.5))
        (cells1, diagonal1), (cells2, diagonal2) = views
        reach = 0.7 * max(diagonal1, diagonal2)
        near = sum((a - c) ** 2 + (b - d) ** 2 < reach**2 for a, b in cells1 for c, d in cells2)
        share += near / 49**2 / draws
    return share


def test_the_expected_share_of_pairs_is_that_of_the_definition():
    sizes = torch.tensor([375]), torch.tensor([500])
    share, none = expected_pairs(*sizes, "pixel", 7, 0.7, 0.08)
    assert share == pytest.approx(slow_share(375, 500, 600), rel=0.1)
    assert 0.01 < none < 0.06


def test_published_expectations_at_imagenet_s_size():
    """About 115 positives of 2401 pairs, 3 % of crop pairs without overlap on 500x375 images."""
    share, none = expected_pairs(torch.tensor([375]), torch.tensor([500]), "image", 7, 0.7, 0.08)
    assert share * 2401 == pytest.approx(115, abs=6) and none == pytest.approx(0.03, abs=0.01)


def test_the_cells_of_sizes_that_32_does_not_divide_are_those_of_the_maps(tmp_path, capsys):
    root = pictures.folder(tmp_path / "data", 3)
    assert main([str(root), "--workers", "0", "--image_size", "80"]) == 0
    assert "of the 9 x 9 cell pairs" in capsys.readouterr().out
