"""The detectron2 configs say what was published, and a config that does not fit its weights stops the run."""

import argparse
import json
import sys
from pathlib import Path

import pytest

from downstream.common.published import results_table
from downstream.conversion.weights_file import RGB as IMAGES
from downstream.conversion.weights_file import image_settings, shape_settings
from downstream.detection.recipes import scaled_settings
from downstream.finetuning import command as finetune
from downstream.finetuning.config_check import check_config, trained_settings, weights_settings
from downstream.finetuning.own_data import find_own_data, is_benchmark
from downstream.finetuning.paths import missing_paths, present
from pixpro.errors import UserError
from pixpro.scenes import write_scenes
from pixpro.scenes.drawing import CLASSES
from tests.helpers.detection_data import write_detection_data
from tests.helpers.detectron2_settings import COMMON, MSRA, PUBLISHED, RGB

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install -r requirements.txt")

CONFIGS = Path(__file__).resolve().parents[2] / "downstream" / "configs"
VOC = ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test")
COCO = ("coco_2017_train", "coco_2017_val")


def merged(*names):
    """Flat settings of config files merged in order, `_BASE_` first."""
    settings = {}
    for name in names:
        content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        if base := content.pop("_BASE_", None):
            settings |= merged(base.removesuffix(".yaml"))
        settings |= flat(content)
    return settings


def flat(node, prefix=""):
    leaves = {}
    for key, value in node.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder as DETECTRON2_DATASETS wants it, with sample scenes as VOC and COCO."""
    return write_detection_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(("overlay", "input_settings"), [("weights_rgb", RGB), ("weights_msra", MSRA)])
def test_a_config_with_its_overlay_has_the_published_settings(name, overlay, input_settings):
    settings = merged(name, overlay)
    for key, value in (PUBLISHED[name] | input_settings).items():
        assert settings[key] == value, key
    # What the files do not say is detectron2's default; a test with detectron2 checks those.
    assert settings.keys() <= (COMMON | PUBLISHED[name] | input_settings).keys() | {
        "VERSION",
        "MODEL.META_ARCHITECTURE",
    }


@pytest.mark.parametrize("key", RGB)
def test_one_wrong_setting_stops_the_run_and_is_named(key):
    expected = rgb_settings_of("resnet50")
    config = expected | {key: MSRA[key]}
    with pytest.raises(UserError) as caught:
        check_config(expected, config.__getitem__, "weights.pkl")
    message = str(caught.value)
    assert key in message and "weights_rgb.yaml" in message and "weights.pkl" in message
    assert not any(other in message for other in expected if other != key)


def rgb_settings_of(arch):
    from downstream.conversion.names import SHAPES

    return shape_settings(SHAPES[arch]) | image_settings(**IMAGES)


@pytest.mark.parametrize(("arch", "key"), [("resnet101", "DEPTH"), ("wide_resnet50_2", "WIDTH_PER_GROUP")])
def test_another_backbone_than_the_configs_is_named(arch, key):
    with pytest.raises(UserError, match=f"MODEL.RESNETS.{key} is"):
        check_config(rgb_settings_of(arch), rgb_settings_of("resnet50").__getitem__, "weights.pkl")


def test_settings_that_fit_pass_whether_tuple_or_list_float_or_rounded():
    expected = rgb_settings_of("resnet50")
    config = expected | {"MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53], "MODEL.PIXEL_STD": [58.395, 57.12, 57.3750001]}
    check_config(expected, config.__getitem__, "weights.pkl")


def test_a_trained_detector_is_held_to_the_config_beside_it(tmp_path):
    (tmp_path / "model_final.pth").touch()
    with pytest.raises(UserError, match=r"no readable config\.yaml"):
        weights_settings(tmp_path / "model_final.pth")
    node = {"INPUT": {"FORMAT": "BGR"}, "MODEL": {"PIXEL_MEAN": [1.0], "PIXEL_STD": [1.0], "RESNETS": {}}}
    keys = ("STRIDE_IN_1X1", "DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS")
    node["MODEL"]["RESNETS"] = dict.fromkeys(keys, 1)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(node))
    assert trained_settings(tmp_path)["INPUT.FORMAT"] == "BGR"
    assert weights_settings(tmp_path / "model_final.pth") == trained_settings(tmp_path)


def test_weights_that_are_missing_or_of_another_kind_are_named(tmp_path):
    with pytest.raises(UserError, match="no weights at .*pixpro.pkl"):
        weights_settings(tmp_path / "pixpro.pkl")
    (tmp_path / "last.pth.tar").touch()
    with pytest.raises(UserError, match="last.pth.tar is no detectron2 weight file"):
        weights_settings(tmp_path / "last.pth.tar")


@pytest.mark.parametrize(
    ("images", "lr", "voc", "coco"),
    [
        (8, 0.01, (48_000, (36_000, 44_000), 200), (180_000, (120_000, 160_000), 2000)),
        (4, 0.005, (96_000, (72_000, 88_000), 400), (360_000, (240_000, 320_000), 4000)),
        (2, 0.0025, (192_000, (144_000, 176_000), 800), (720_000, (480_000, 640_000), 8000)),
    ],
)
def test_a_smaller_batch_scales_rate_and_schedule_linearly(images, lr, voc, coco):
    schedule = ("SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.WARMUP_ITERS")
    for published, expected in (((24_000, (18_000, 22_000), 100), voc), ((90_000, (60_000, 80_000), 1000), coco)):
        others = {"SOLVER.BASE_LR": 0.02, "SOLVER.CHECKPOINT_PERIOD": 5000, "TEST.EVAL_PERIOD": 0}
        result = scaled_settings(dict(zip(schedule, published, strict=True)) | others, images, 16)
        assert tuple(result[key] for key in schedule) == expected
        assert result["SOLVER.BASE_LR"] == pytest.approx(lr) and result["TEST.EVAL_PERIOD"] == 0
        assert result["SOLVER.CHECKPOINT_PERIOD"] == 5000 * 16 // images


def test_missing_data_is_found_and_nothing_is_missing_from_the_scenes(tmp_path, data):
    assert missing_paths(data, (*VOC, *COCO)) == []
    absent = [str(path.relative_to(tmp_path)) for path in missing_paths(tmp_path, ("voc_2007_test", "coco_2017_val"))]
    assert absent == [
        "VOC2007/ImageSets/Main/test.txt",
        "VOC2007/Annotations",
        "VOC2007/JPEGImages",
        "coco/annotations/instances_val2017.json",
        "coco/val2017",
    ]


def test_what_a_run_needs_is_looked_for_as_its_command_line_says(monkeypatch, tmp_path, data):
    def said(*arguments):
        monkeypatch.setattr(sys, "argv", ["train_voc.py", *arguments])
        lines = finetune.missing(finetune.parse("", CONFIGS / "voc_c4_24k.yaml"), VOC)
        return [line for line in lines if "is not installed" not in line]

    monkeypatch.setenv("DETECTRON2_DATASETS", str(data))
    absent = str(tmp_path / "absent.pkl")
    assert said("--weights", "detectron2://ImageNetPretrained/MSRA/R-50.pkl") == []
    (line,) = said("--weights", absent)
    assert "no weights" in line and absent in line
    assert said("MODEL.WEIGHTS", str(CONFIGS / "base_c4.yaml"), "--weights", absent) == []  # the later source wins
    assert said("--weights", absent, "--resume") == []  # it goes on from its own checkpoint
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (line,) = said("DATASETS.TRAIN", "('coco_2017_val',)", "DATASETS.TEST", "coco_2017_val")
    assert "no data" in line and "folder that holds coco " in line and "1 more paths are missing" in line
    assert said("DATASETS.TRAIN", "('my_own',)", "DATASETS.TEST", "7") == []


def own(layout, root, train, test, **options):
    """What train_LAYOUT.py makes of the data below root."""
    settings = {"data": None, "train_split": None, "test_split": None, "classes": None, "fraction": None}
    args = argparse.Namespace(layout=layout, **{**settings, "fraction_seed": 0, **options})
    return find_own_data(args, root, train, test)


def test_classes_of_the_scenes_are_read_from_either_layout(data):
    assert own("coco", data, COCO[:1], COCO[1:]).images.class_names == list(CLASSES)
    assert own("voc", data, VOC[:2], VOC[2:]).images.class_names == sorted(CLASSES)


def test_the_real_voc_keeps_its_own_classes(tmp_path):
    for folder, split in (("VOC2007", "trainval"), ("VOC2012", "trainval"), ("VOC2007", "test")):
        (tmp_path / folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"ImageSets/Main/person_{split}.txt").touch()
    assert is_benchmark(tmp_path, VOC) is True and own("voc", tmp_path, VOC[:2], VOC[2:]) is None


def test_the_real_coco_keeps_its_own_classes(tmp_path):
    (tmp_path / "coco/annotations").mkdir(parents=True)
    missing = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # numbers that COCO left unused
    categories = [{"id": number, "name": str(number)} for number in range(1, 91) if number not in missing]
    content = json.dumps({"categories": categories})
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(content)
    (tmp_path / "coco/annotations/instances_train2017.json").write_text("x" * 10_000)  # would be 450 MB: not read
    assert len(categories) == 80 and own("coco", tmp_path, COCO[:1], COCO[1:]) is None
    for entry in categories:
        entry["id"] -= 1  # eighty classes of somebody else's
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(json.dumps({"categories": categories}))
    assert is_benchmark(tmp_path, COCO) is False


@pytest.mark.parametrize("damage", ["no annotation", "no categories"])
def test_data_that_detectron2_would_stumble_over_is_named(tmp_path, damage):
    scenes = write_scenes(tmp_path / "VOC2007", 8)
    if damage == "no annotation":
        next((scenes / "Annotations").iterdir()).unlink()
        layout, names, expected = "voc", ("voc_2007_trainval", "voc_2007_test"), "there is no file of that name"
    else:
        (tmp_path / "coco/annotations").mkdir(parents=True)
        (tmp_path / "coco/annotations/instances_val2017.json").write_text("{}")
        layout, names, expected = "coco", ("coco_2017_val", "coco_2017_val"), "cannot read the annotations"
    with pytest.raises(UserError, match=expected):
        own(layout, tmp_path, names[:1], names[1:])


def test_a_folder_of_any_name_is_taken_as_it_is(tmp_path):
    folder = write_scenes(tmp_path / "blood cells", 8)
    found = own("voc", tmp_path / "nothing", VOC[:2], VOC[2:], data=folder)
    assert found.images.class_names == sorted(CLASSES) and "no split was named" in found.notes[0]
    assert [image.image_id for image in found.images.test] == (folder / "ImageSets/Main/test.txt").read_text().split()


def test_one_folder_of_ones_own_does_without_voc2012_but_voc_itself_does_not(tmp_path):
    lists = write_scenes(tmp_path / "VOC2007", 8) / "ImageSets/Main"
    assert present(tmp_path, VOC) == ("voc_2007_trainval", "voc_2007_test")
    (lists / "person_trainval.txt").touch()
    assert present(tmp_path, VOC) == VOC


def test_the_final_table_puts_the_run_below_the_published_numbers():
    table = results_table("voc_c4_24k", "mine", {"bbox/AP": 57.25, "bbox/AP50": 82.0, "bbox/AP75": None})
    lines = table.splitlines()
    assert lines[-1].split() == ["this", "run:", "mine", "57.2", "82.0", "-"]
    assert next(line for line in lines if "PixPro, 400" in line).split()[-3:] == ["60.2", "83.8", "67.7"]
    fpn = results_table("coco_fpn_1x", "mine", {"bbox/AP": 1.0, "segm/AP": 2.0})
    assert next(line for line in fpn.splitlines() if "PixPro, 100" in line).split()[-2:] == ["40.8", "36.8"]
    assert "this run: mine" in results_table("my_own", "mine", {})
