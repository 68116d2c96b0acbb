"""Folders with labels: masks are read from the usual layouts, and what is wrong in them is named."""

import numpy as np
import pytest
from PIL import Image

from downstream.probes.labelled import mask_folder
from downstream.probes.mask_scores import count_classes
from downstream.segmentation.masks import CITYSCAPES_IDS, VOID, read_mask
from pixpro.errors import UserError
from pixpro.scenes import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "voc", 8, seed=1, held_out=2)


def test_scenes_are_read_as_vocs_layout_and_tested_on_test(scenes):
    masks = mask_folder(scenes)
    assert masks.layout == "voc" and len(masks.train) == 6 and len(masks.test) == 2
    (scenes / "SegmentationClass" / "000008.png").rename(scenes / "kept.png")
    try:
        without = mask_folder(scenes)
        names = (scenes / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
        assert [image.stem for image, _ in without.test] == names and len(without.train) < 6
    finally:
        (scenes / "kept.png").rename(scenes / "SegmentationClass" / "000008.png")
    assert count_classes(masks.train + masks.test) <= 9


@pytest.mark.parametrize("kind", ["TrainIds", "Ids"])
def test_cityscapes_layout_gives_the_classes_of_the_benchmark(tmp_path, kind):
    for split_name in ("train", "val"):
        for part in ("leftImg8bit", "gtFine"):
            (tmp_path / part / split_name / "ulm").mkdir(parents=True)
        Image.new("RGB", (64, 32)).save(tmp_path / "leftImg8bit" / split_name / "ulm" / "ulm_1_leftImg8bit.png")
        values = np.arange(34, dtype=np.uint8)[None].repeat(2, 0)
        if kind == "TrainIds":
            values = np.array([CITYSCAPES_IDS.index(v) if v in CITYSCAPES_IDS else 255 for v in range(34)], np.uint8)[
                None
            ]
        Image.fromarray(values).save(tmp_path / "gtFine" / split_name / "ulm" / f"ulm_1_gtFine_label{kind}.png")
    masks = mask_folder(tmp_path)
    assert masks.layout == "cityscapes" and len(masks.train) == len(masks.test) == 1
    mask = read_mask(masks.test[0][1])[0]
    # road, sidewalk, building, ..., bicycle; everything else is void
    assert mask[7] == 0 and mask[8] == 1 and mask[11] == 2 and mask[33] == 18 and mask[0] == VOID
    assert sorted(set(mask.tolist())) == [*range(19), VOID]


def test_masks_that_are_no_masks_are_named(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "rgb.png").read_bytes()[:40])
    for name in ("rgb.png", "cut.png"):
        with pytest.raises(UserError, match=name):
            read_mask(tmp_path / name)


def test_a_split_file_cannot_lead_out_of_its_folder(tmp_path):
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("../../secret\n")
    with pytest.raises(UserError, match="one image name per line"):
        mask_folder(tmp_path)
