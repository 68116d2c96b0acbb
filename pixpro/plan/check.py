"""`python -m pixpro check`: what is in a data set, what is bad in it, what the loss will find in it."""

import argparse
import collections
import os
import random
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixpro.data.cores import available_cores
from pixpro.data.views import Distance, crop_box, draw_crop
from pixpro.errors import BadImage, one_line_errors, printable
from pixpro.images import Images, open_images
from pixpro.images.decoding import decode_and_tell
from pixpro.images.jpeg import decoder_name
from pixpro.method.geometry import cells_along, positive_pairs

LISTED = 20  # scaled files named
SIMULATED = 4000  # crop pairs; the share of positives then has a standard error below 2 % of itself


class Report(NamedTuple):
    """What a scan of every image found."""

    heights: Tensor  # (N,) pixels of the good files
    widths: Tensor
    encoded: Tensor  # (N,) bytes
    bad: dict[str, str]  # name -> reason
    scaled: dict[str, str]  # name -> by which range its samples of more than 8 bits are brought to 8


class _Probe(Dataset):
    """(height, width, bytes, reason, scaled) of each image; a bad one has a reason."""

    def __init__(self, source: Images) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[int, int, int, str, str]:
        try:
            data = self.source.read(i)
            pixels, scaled = decode_and_tell(data)
        except BadImage as error:
            return 0, 0, 0, str(error), ""
        return *pixels.shape[1:], len(data), "", scaled


def scan(source: Images, workers: int = 0) -> Report:
    """Decode every image once."""
    rows = DataLoader(_Probe(source), batch_size=64, num_workers=workers, collate_fn=list)
    sizes, bad, by_range = [], dict[str, str](), dict[str, str]()
    for i, (*size, reason, scaled) in enumerate(row for batch in rows for row in batch):
        if scaled:
            by_range[unused_name(source, i, by_range)] = scaled
        if reason:
            bad[unused_name(source, i, bad)] = reason
        else:
            sizes.append(size)
    heights, widths, encoded = torch.tensor(sizes, dtype=torch.int64).reshape(-1, 3).unbind(1)
    return Report(heights, widths, encoded, bad, by_range)


def unused_name(source: Images, i: int, used: dict[str, str]) -> str:
    """The name of image i, with its number where an archive has several members of one name."""
    name = source.name(i)
    return f"{name} (image {i})" if name in used else name


def expected_pairs(
    heights: Tensor, widths: Tensor, distance: Distance, size: int, threshold: float, crop_min: float
) -> tuple[float, float]:
    """Shares of positive cell pairs and of crop pairs without any, over crops of images of these sizes."""
    rng = random.Random(0)
    boxes: tuple[list, list] = ([], [])
    for _ in range(SIMULATED):
        i = rng.randrange(len(heights))
        height, width = int(heights[i]), int(widths[i])
        for view in boxes:
            crop = draw_crop(rng, height, width, (crop_min, 1.0))
            view.append(crop_box(crop, height, width, rng.random() < 0.5, distance))
    boxes1, boxes2 = (torch.tensor(view).split(200) for view in boxes)
    pairs = [positive_pairs(b1, b2, size, threshold).flatten(1) for b1, b2 in zip(boxes1, boxes2, strict=True)]
    share = torch.cat([p.float().mean(1) for p in pairs])
    return share.mean().item(), (share == 0).float().mean().item()


def _spread(values: Tensor, digits: int = 0) -> str:
    low, middle, high = torch.quantile(values.double()[:10_000_000], torch.tensor([0.05, 0.5, 0.95]).double())
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def summary(source: Images, report: Report, image_size: int, threshold: float, crop_min: float) -> str:
    """The report as text: medians with the middle 90 % in brackets."""
    good, bad = len(report.heights), len(report.bad)
    endings = collections.Counter(
        os.path.splitext(store.name(i))[1].lower() for store in source.stores for i in range(len(store))
    )
    told = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
    rows = [("images", f"{len(source)} in {len(source.stores)} place(s): {told}")]
    rows += [("bad files", f"{bad} ({bad / len(source):.2%})")]
    rows += [("", f"{printable(name)}: {printable(reason)}") for name, reason in report.bad.items()]
    missed = source.left_out.missed
    rows += [("left out", f"{len(source.left_out)}" + (f", {missed} of them may be images" if missed else ""))]
    rows += [("", line) for line in source.left_out.lines()]
    if report.scaled:
        rows += [("scaled", f"{len(report.scaled)} of more than 8 bits a sample, each by")]
        rows += [("", f"{printable(name)}: {scaled}") for name, scaled in list(report.scaled.items())[:LISTED]]
        rows += [("", f"and {len(report.scaled) - LISTED} more")] * (len(report.scaled) > LISTED)
    rows += [("decoder", f"JPEG by {decoder_name()}, other formats by Pillow")]
    if good:
        short = torch.minimum(report.heights, report.widths)
        rows += [
            ("width", f"{_spread(report.widths)} px"),
            ("height", f"{_spread(report.heights)} px"),
            ("width/height", _spread(report.widths / report.heights, 2)),
            ("file", f"{_spread(report.encoded / 1000, 1)} kB"),
            ("enlarged", f"{(short < image_size).float().mean():.1%} of the images have a side under {image_size} px"),
        ]
        cells = cells_along(image_size)
        for distance in ("image", "pixel"):
            share, none = expected_pairs(report.heights, report.widths, distance, cells, threshold, crop_min)
            pairs = f"{share:.2%} of the {cells * cells} x {cells * cells} cell pairs"
            rows += [("positives", f"{pairs}, none in {none:.1%} of the crop pairs (--distance {distance})")]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0, 1 if there are bad files, 2 if there is nothing to scan."""
    parser = argparse.ArgumentParser(
        prog="python -m pixpro check",
        description="Decode every image; sizes, bad files, expected share of positive pairs.",
    )
    parser.add_argument("roots", nargs="+", metavar="PATH", help="folders, .tar and .zip files")
    parser.add_argument("--image_size", "--image-size", type=int, default=224, help="side of the crops (default 224)")
    parser.add_argument("--crop_min", "--crop-min", type=float, default=0.08, help="smallest crop (default 0.08)")
    parser.add_argument("--threshold", type=float, default=0.7, help="distance of positives (default 0.7)")
    parser.add_argument("--workers", type=int, default=available_cores() - 1, help="processes (default: cores - 1)")
    args = parser.parse_args(argv)
    source = open_images(args.roots)
    report = scan(source, args.workers)
    print(summary(source, report, args.image_size, args.threshold, args.crop_min))
    return 1 if report.bad else 0
