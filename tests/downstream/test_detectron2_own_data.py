"""Data of one's own in detectron2 itself, on the CPU: as people have them, trained on and scored."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from downstream.conversion.convert import convert, described
from downstream.conversion.weights_file import write_weights
from downstream.finetuning import command as finetune
from pixpro.scenes import write_scenes
from pixpro.scenes.coco import write_coco
from tests.helpers.detectron2_marks import NEEDS_DETECTRON2
from tests.helpers.trunks import encoder_of

pytestmark = [*NEEDS_DETECTRON2, pytest.mark.filterwarnings("ignore")]
SMALL = "--trial INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 8"
SMALL += " TEST.PRECISE_BN.NUM_ITER 1 --iterations 2 --lr 0.001"


EDITS = {
    "<difficult>0</difficult>": "<difficult/>",
    "<pose>Unspecified</pose>": "",
    "<name>ball</name>": "<name>ball/round</name>",
    "</xmin>": ".0</xmin>",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    conversion = convert(encoder_of("resnet18"), "resnet18")
    path = tmp_path_factory.mktemp("weights") / "resnet18.pkl"
    write_weights(path, conversion.weights, described(conversion, "resnet18"))
    return path


@pytest.fixture
def fine_tune(monkeypatch, capsys, weights, tmp_path):
    """Runs train_voc.py or train_coco.py at small sizes in this process: exit code, printed lines, error lines."""

    def run(program: str, *words: object) -> tuple[int, str, str]:
        given = ["train", "--weights", weights, "--output-dir", tmp_path / "run", *SMALL.split(), *words]
        monkeypatch.setattr(sys, "argv", [str(word) for word in given])
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nothing"))
        published = ("voc_2007_test",) if program.startswith("voc") else ("coco_2017_val",)
        try:
            finetune.main("", program, published)
        except SystemExit as end:
            return end.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


def test_a_voc_folder_as_people_have_it_is_trained_on_and_scored(fine_tune, tmp_path):
    folder = write_scenes(tmp_path / "my cells {v2}", 8)  # braces in a path break detectron2's own evaluator
    for path in (folder / "JPEGImages").iterdir():
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    for path in (folder / "Annotations").iterdir():
        text = path.read_text()
        for old, new in EDITS.items():
            text = text.replace(old, new)
        path.write_text(text)
    (folder / "ImageSets/Main/test.txt").write_text((folder / "ImageSets/Main/test.txt").read_text().splitlines()[0])
    code, printed, said = fine_tune("voc_c4_24k", "--data", folder)
    assert code == 0, said
    assert "no split was named" in printed and "empty or unspecified <difficult>" in printed
    assert "the trunk of the weights: MODEL.RESNETS.DEPTH 18" in printed and "2 iterations instead of 20" in printed
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert {"bbox/AP", "bbox/AP50", "bbox/AP75", "bbox/AP50-ball/round"} <= results["metrics"].keys()
    assert results["iterations"] == 2 and results["lr"] == 0.001


def as_codes(coco: Path, split: str) -> None:
    """Masks as run-length codes, ids as texts, no area, no iscrowd, an `ignore` that detectron2 does not take."""
    from pycocotools import mask

    path = coco / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for item in content["annotations"]:
        code = mask.merge(mask.frPyObjects(item["segmentation"], *sizes[item["image_id"]]))
        item["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
        item |= {"ignore": 1, "image_id": f"scene {item['image_id']}", "id": 0}
        del item["area"], item["iscrowd"]
    for image in content["images"]:
        image["id"] = f"scene {image['id']}"
    path.write_text(json.dumps(content))


def test_a_coco_folder_as_people_have_it_is_trained_on_and_scored(fine_tune, tmp_path):
    coco = write_coco(write_scenes(tmp_path / "scenes", 8), tmp_path / "own")
    for split in ("train2017", "val2017"):
        as_codes(coco, split)
    code, printed, said = fine_tune("coco_c4_1x", "--data", coco, "--fraction", 0.5)
    assert code == 0, said
    for words in ("INPUT.MASK_FORMAT bitmask", "image ids are not whole numbers", "annotation ids repeat", "3 of 6"):
        assert words in printed
    assert {"bbox/AP", "segm/AP"} <= json.loads((tmp_path / "run/results.json").read_text())["metrics"].keys()


def test_objects_without_masks_stop_a_run_that_would_train_masks(fine_tune, tmp_path):
    coco = write_coco(write_scenes(tmp_path / "scenes", 8), tmp_path / "own")
    path = coco / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = []
    path.write_text(json.dumps(content))
    code, _, said = fine_tune("coco_c4_1x", "--data", coco)
    assert code == 2 and said.count("\n") == 1 and "1 of" in said and "add MODEL.MASK_ON False" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "missing"], "no folder missing"),
        (["--test-split", "test"], "name splits of --data"),
        (["DATASETS.TRAIN", "('mine',)", "DATASETS.TEST", "('mine',)", "--fraction", "0.1"], "do not know mine, mine"),
        (["--data", "missing", "SOLVER.MAX_ITER", "3"], "--iterations and SOLVER.MAX_ITER say the same"),
    ],
)
def test_settings_that_cannot_be_followed_are_named(fine_tune, words, message):
    if "--test-split" in words:
        words = [*words, "DATASETS.TRAIN", "('mine',)", "DATASETS.TEST", "('mine',)"]
    code, _, said = fine_tune("voc_c4_24k", *words)
    assert code == 2 and message in said and said.count("\n") == 1
