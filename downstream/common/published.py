"""Published detection results to stand beside a run's own, as one table."""

from collections.abc import Mapping

from tabulate import tabulate

# Rows of the paper (arXiv:2011.10043) and of the official README; 8 GPUs, batch 16. A dash: not published.
VOC = {
    "scratch": (33.8, 60.2, 33.1),
    "supervised, 100 epochs": (53.5, 81.3, 58.8),
    "MoCo v2, 800 epochs": (57.6, 82.7, 64.4),
    "PixPro, 100 epochs": (58.8, 83.0, 66.5),
    "PixPro, 400 epochs": (60.2, 83.8, 67.7),
}
COCO_C4 = {
    "scratch": (26.4, 29.3),
    "supervised, 100 epochs": (38.2, 33.3),
    "MoCo v2, 800 epochs": (39.5, 34.5),
    "PixPro, 100 epochs": (40.0, 34.8),
    "PixPro, 400 epochs": (40.5, 35.3),
}
COCO_FPN = {
    "scratch": (32.8, 29.9),
    "supervised, 100 epochs": (39.7, 35.9),
    "MoCo v2, 800 epochs": (40.4, 36.4),
    "PixPro, 100 epochs": (40.8, 36.8),
    "PixPro with instance branch, 100 epochs": (41.3, 37.1),
    "PixPro with instance branch, 400 epochs": (41.4, 37.4),
}

BOXES = {"bbox/AP": "AP", "bbox/AP50": "AP50", "bbox/AP75": "AP75"}  # detectron2's name of a metric -> its heading
BOXES_AND_MASKS = {"bbox/AP": "box AP", "segm/AP": "mask AP"}

# Config file -> (title, metrics, published rows).
TABLES = {
    "voc_c4_24k": ("VOC 2007 test, Faster R-CNN R50-C4, 24k iterations on 07+12 trainval", BOXES, VOC),
    "coco_c4_1x": ("COCO val2017, Mask R-CNN R50-C4, 1x", BOXES_AND_MASKS, COCO_C4),
    "coco_fpn_1x": ("COCO val2017, Mask R-CNN R50-FPN, 1x", BOXES_AND_MASKS, COCO_FPN),
}


def results_table(config: str, label: str, metrics: Mapping[str, float | None]) -> str:
    """The published rows and, below them, this run's.

    config: stem of the config file; one of the user's own has no published rows. label: how to call this run.
    metrics: like {"bbox/AP": 58.8}; absent or None is shown as a dash.
    """
    title, headings, rows = TABLES.get(config, (config, BOXES_AND_MASKS, {}))
    own = tuple(map(metrics.get, headings))
    entries = [(f"published: {method}", values) for method, values in rows.items()] + [(f"this run: {label}", own)]
    cells = [[entry, *("-" if value is None else f"{value:.1f}" for value in values)] for entry, values in entries]
    alignment = ["left", *["right"] * len(headings)]
    return f"{title}\n{tabulate(cells, ['', *headings.values()], disable_numparse=True, colalign=alignment)}"
