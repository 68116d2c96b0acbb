"""Converted weights in detectron2 itself: the checkpoint's features, under detectron2's names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from downstream.conversion.convert import build_pyramid, convert, described
from downstream.conversion.names import SHAPES, trunk_name
from downstream.conversion.verify import checkpoint_features, relative_difference
from downstream.conversion.weights_file import RGB as IMAGES
from downstream.conversion.weights_file import shape_settings, write_weights
from downstream.feature_parity import WRONG, c4_features, c4_model
from pixpro.scenes import write_scenes
from tests.helpers.detectron2_marks import NEEDS_DETECTRON2
from tests.helpers.detectron2_settings import RGB
from tests.helpers.trunks import encoder_of, neck_of

pytestmark = [*NEEDS_DETECTRON2, pytest.mark.filterwarnings("ignore")]
CONFIGS = Path(__file__).resolve().parents[2] / "downstream" / "configs"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with sample scenes as VOC2007."""
    root = tmp_path_factory.mktemp("data")
    write_scenes(root / "VOC2007", 8)
    return root


def scene(data, side=192):
    """A corner of a sample scene as (1, 3, side, side), RGB, 0..255."""
    with Image.open(sorted((data / "VOC2007/JPEGImages").iterdir())[0]) as image:
        pixels = np.asarray(image.convert("RGB"))[:side, :side]
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float()


def detector(config, arch, settings):
    """detectron2's model for a config file, in evaluation mode."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from downstream.finetuning import extensions  # noqa: F401  registers the head

    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"{config}.yaml"))
    for key, value in (shape_settings(SHAPES[arch]) | settings).items():
        cfg.merge_from_list([key, value])
    cfg.merge_from_list(["MODEL.DEVICE", "cpu"])
    return build_model(cfg).eval()


def load(model, path):
    from detectron2.checkpoint import DetectionCheckpointer

    DetectionCheckpointer(model).load(str(path))


def test_converted_features_are_the_checkpoints_and_each_wrong_setting_is_far_off(data, tmp_path):
    conversion = convert(encoder_of("resnet50"), "resnet50")
    path = tmp_path / "resnet50.pkl"
    write_weights(path, conversion.weights, described(conversion, "resnet50"))
    pixels = scene(data)
    expected = checkpoint_features(conversion, "resnet50", pixels)
    models = {stride: c4_model("resnet50", path, **(IMAGES | {"stride_in_1x1": stride})) for stride in (False, True)}
    for name, change in {"right": {}, **WRONG}.items():
        settings = IMAGES | change
        # What build_model does with these keys; building a model for each would take seconds.
        model = models[settings["stride_in_1x1"]]
        model.input_format = settings["pixel_format"]
        model.pixel_mean[:, 0, 0] = torch.tensor(settings["pixel_mean"])
        model.pixel_std[:, 0, 0] = torch.tensor(settings["pixel_std"])
        features = c4_features(model, pixels)
        differences = {stage: relative_difference(expected[stage], features[stage]) for stage in features}
        print(f"{name:28} " + "  ".join(f"{stage} {value:.1e}" for stage, value in differences.items()))
        if name == "right":
            assert max(differences.values()) <= 1e-5
        else:
            assert min(differences.values()) > 1e-2


@pytest.mark.parametrize("arch", SHAPES)
def test_every_backbones_tensors_are_named_and_shaped_as_in_detectron2(arch):
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone.resnet import build_resnet_backbone
    from torchvision.models import get_model

    settings = shape_settings(SHAPES[arch]) | {
        "MODEL.RESNETS.OUT_FEATURES": ["res5"],
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.BACKBONE.FREEZE_AT": 0,
    }
    cfg = detectron2_config(settings)
    with torch.device("meta"):
        theirs = build_resnet_backbone(cfg, ShapeSpec(channels=3)).state_dict()
        ours = get_model(arch).state_dict()
    assert {trunk_name(key): value.shape for key, value in ours.items() if not key.startswith("fc.")} == {
        key: value.shape for key, value in theirs.items()
    }


def detectron2_config(settings):
    from detectron2.config import get_cfg

    cfg = get_cfg()
    for key, value in settings.items():
        cfg.merge_from_list([key, value])
    return cfg


def test_a_pretrained_pyramid_works_in_detectron2s_fpn(data, tmp_path):
    state_dict = encoder_of("resnet18") | neck_of([64, 128, 256, 512], 256)
    conversion = convert(state_dict, "resnet18")
    path = tmp_path / "pyramid.pkl"
    write_weights(path, conversion.weights, described(conversion, "resnet18"))
    model = detector("coco_fpn_1x", "resnet18", RGB)
    load(model, path)
    pixels = scene(data)
    with torch.no_grad():
        features = model.backbone(model.preprocess_image([{"image": pixels[0]}]).tensor)
    expected = checkpoint_features(conversion, "resnet18", pixels)
    assert build_pyramid("resnet18", conversion.neck).state_dict().keys() == conversion.neck.keys()
    for level in ("p2", "p3", "p4", "p5"):
        assert relative_difference(expected[level], features[level]) <= 1e-5
