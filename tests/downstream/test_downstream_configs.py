"""The detectron2 configs say what was published, and a config that does not fit its weights stops the run."""

from pathlib import Path

import pytest

from downstream.common.published import results_table
from downstream.conversion.weights_file import RGB as IMAGES
from downstream.conversion.weights_file import image_settings, shape_settings
from downstream.detection.recipes import scaled_settings
from downstream.finetuning.config_check import check_config, trained_settings, weights_settings
from pixpro.errors import UserError
from tests.helpers.detectron2_settings import COMMON, MSRA, PUBLISHED, RGB

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install -r requirements.txt")

CONFIGS = Path(__file__).resolve().parents[2] / "downstream" / "configs"


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


def test_the_final_table_puts_the_run_below_the_published_numbers():
    table = results_table("voc_c4_24k", "mine", {"bbox/AP": 57.25, "bbox/AP50": 82.0, "bbox/AP75": None})
    lines = table.splitlines()
    assert lines[-1].split() == ["this", "run:", "mine", "57.2", "82.0", "-"]
    assert next(line for line in lines if "PixPro, 400" in line).split()[-3:] == ["60.2", "83.8", "67.7"]
    fpn = results_table("coco_fpn_1x", "mine", {"bbox/AP": 1.0, "segm/AP": 2.0})
    assert next(line for line in fpn.splitlines() if "PixPro, 100" in line).split()[-2:] == ["40.8", "36.8"]
    assert "this run: mine" in results_table("my_own", "mine", {})
