"""Converted weights and fine-tuning in detectron2 itself, on the CPU; skipped where it is not on the path."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from downstream.conversion.convert import build_pyramid, convert, described
from downstream.conversion.names import SHAPES, trunk_name
from downstream.conversion.trunk import relative_difference
from downstream.conversion.verify import checkpoint_features
from downstream.conversion.weights_file import read_weights, shape_settings, write_weights
from downstream.feature_parity import RIGHT, WRONG, c4_features, c4_model
from downstream.finetuning import command as finetune
from pixpro.errors import UserError
from pixpro.scenes import write_scenes
from pixpro.scenes.coco import write_coco
from tests.detectron2_settings import COMMON, MSRA, PUBLISHED, RGB
from tests.trunks import encoder_of, neck_of

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        importlib.util.find_spec("detectron2") is None,
        reason="detectron2 is not on the path: source install_packages.sh --detectron2",
    ),
    pytest.mark.filterwarnings("ignore"),
]
CONFIGS = Path(__file__).resolve().parents[1] / "downstream" / "configs"
VOC = ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test")
COCO = ("coco_2017_train", "coco_2017_val")
# On top of --trial, so that a run takes seconds.
SMALL = {
    "MODEL.RESNETS.DEPTH": "18",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "64",
    "SOLVER.MAX_ITER": "4",
    "SOLVER.CHECKPOINT_PERIOD": "2",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": "64",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "8",
    "TEST.PRECISE_BN.NUM_ITER": "1",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with sample scenes as VOC2007, VOC2012 and coco."""
    root = tmp_path_factory.mktemp("data")
    scenes = write_scenes(root / "VOC2007", 8)
    (root / "VOC2012").symlink_to(scenes)
    write_coco(scenes, root / "coco")
    return root


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    """A converted resnet18 with a pyramid."""
    conversion = convert(encoder_of("resnet18") | neck_of([64, 128, 256, 512], 256), "resnet18")
    path = tmp_path_factory.mktemp("weights") / "resnet18.pkl"
    write_weights(path, conversion.weights, described(conversion, "resnet18"))
    return path


def scene(data, side=192):
    """A corner of a sample scene as (1, 3, side, side), RGB, 0..255."""
    with Image.open(sorted((data / "VOC2007/JPEGImages").iterdir())[0]) as image:
        pixels = np.asarray(image.convert("RGB"))[:side, :side]
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float()


def detector(config, arch, settings):
    """detectron2's model for a config file, in evaluation mode."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from downstream.finetuning import roi_heads  # noqa: F401  registers the head

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
    models = {stride: c4_model("resnet50", path, **(RIGHT | {"stride_in_1x1": stride})) for stride in (False, True)}
    for name, change in {"right": {}, **WRONG}.items():
        settings = RIGHT | change
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


def test_a_pretrained_pyramid_works_in_detectron2s_fpn(data, resnet18):
    state_dict = encoder_of("resnet18") | neck_of([64, 128, 256, 512], 256)
    conversion = convert(state_dict, "resnet18")
    path = resnet18.with_name("pyramid.pkl")
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_detectron2_reads_the_published_settings_from_our_configs(name):
    from downstream.finetuning.config import build_config, lookup

    for overlay, settings in (("weights_rgb", RGB), ("weights_msra", MSRA)):
        cfg, notes = build_config(
            [CONFIGS / f"{name}.yaml", CONFIGS / f"{overlay}.yaml"],
            weights=None,
            output_dir=None,
            options=[],
            processes=8,
            device="cuda",
        )
        assert notes == []
        for key, value in (COMMON | PUBLISHED[name] | settings).items():
            found = lookup(cfg, key)
            assert (list(found) if isinstance(found, tuple) else found) == value, key


def config_for(options, processes=1, device="cpu"):
    from downstream.finetuning.config import build_config

    return build_config(
        [CONFIGS / "voc_c4_24k.yaml", CONFIGS / "weights_rgb.yaml"],
        weights=None,
        output_dir=None,
        options=options,
        processes=processes,
        device=device,
    )


def test_scaling_is_detectron2s_own_and_leaves_given_values_alone():
    from detectron2.engine import DefaultTrainer

    reference, _ = config_for(["SOLVER.REFERENCE_WORLD_SIZE", "8"], processes=8, device="cuda")
    theirs = DefaultTrainer.auto_scale_workers(reference, 2)
    for options in (["SOLVER.REFERENCE_WORLD_SIZE", "8"], ["SOLVER.IMS_PER_BATCH", "4"]):
        ours, (note,) = config_for(options, processes=2, device="cuda")
        assert ours.SOLVER.IMS_PER_BATCH == theirs.SOLVER.IMS_PER_BATCH == 4
        for key in ("BASE_LR", "MAX_ITER", "STEPS", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
            assert ours.SOLVER[key] == theirs.SOLVER[key], key
        assert "batch 4 instead of 16" in note and "\n" not in note
        # It must not scale a second time when the trainer starts.
        assert DefaultTrainer.auto_scale_workers(ours, 2).SOLVER.MAX_ITER == ours.SOLVER.MAX_ITER
    given, _ = config_for(["SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "7"], device="cuda")
    assert (given.SOLVER.MAX_ITER, given.SOLVER.BASE_LR) == (7, 0.005)


def test_on_a_cpu_no_norm_is_synchronised_and_mixed_precision_is_refused():
    cfg, notes = config_for([])
    assert cfg.MODEL.RESNETS.NORM == "BN" and cfg.MODEL.DEVICE == "cpu" and any("SyncBN" in note for note in notes)
    with pytest.raises(UserError, match="AMP"):
        config_for(["SOLVER.AMP.ENABLED", "True"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["SOLVER.MAX_ITER"], "has no value"),
        (["SOLVER.NO_SUCH_KEY", "1"], "NO_SUCH_KEY"),
        (["SOLVER.MAX_ITER", "many"], "MAX_ITER|many"),
        (["SOLVER.IMS_PER_BATCH", "0"], "batch of 0"),
    ],
)
def test_wrong_config_changes_are_named(options, words):
    with pytest.raises(UserError, match=words):
        config_for(options)


@pytest.mark.parametrize("text", ["MODEL: [", "SOLVER:\n  NO_SUCH_KEY: 1\n", "SOLVER:\n  MAX_ITER: many\n"])
def test_a_config_file_that_cannot_be_used_is_named(tmp_path, text):
    from downstream.finetuning.config import build_config

    (tmp_path / "mine.yaml").write_text(text)
    settings = {"weights": None, "output_dir": None, "options": [], "processes": 1, "device": "cpu"}
    with pytest.raises(UserError, match=r"cannot use the config file .*mine\.yaml"):
        build_config([tmp_path / "mine.yaml"], **settings)


def fine_tune(monkeypatch, capsys, data, weights, output, *arguments, config="voc_c4_24k", names=VOC, **changes):
    """Exit code, printed lines and error lines of a fine-tuning run at small sizes, in this process."""
    options = [part for pair in (SMALL | changes).items() for part in pair]
    argv = ["train", "--trial", "--weights", str(weights), "--output-dir", str(output), *map(str, arguments), *options]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(data))
    code = 0
    try:
        finetune.main("", config, names)
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def test_a_voc_run_resumes_in_the_middle_and_writes_results_beside_the_published(
    monkeypatch, capsys, data, resnet18, tmp_path
):
    out = tmp_path / "run"
    started = (monkeypatch, capsys, data, resnet18, out)
    code, printed, said = fine_tune(*started)
    assert code == 0, said
    assert f"all {len([n for n in read_weights(resnet18).weights if not n.startswith('fpn_')])} tensors" in printed
    assert "BN for SyncBN" in printed and "8 classes" in printed and "a trial at small sizes" in printed
    results = json.loads((out / "results.json").read_text())
    assert results["metrics"].keys() >= {"bbox/AP", "bbox/AP50", "bbox/AP75"} and results["iterations"] == 4
    assert results["weights"]["arch"] == "resnet18" and len(results["notes"]) == 3
    assert "PixPro, 400 epochs" in printed and "this run: resnet18" in printed

    code, _, said = fine_tune(*started)
    assert code == 2 and "holds a run already" in said
    # As if it had been stopped after two iterations.
    (out / "last_checkpoint").write_text("model_0000001.pth")
    (out / "results.json").unlink()
    code, printed, said = fine_tune(*started, "--resume")
    assert code == 0 and "tensors of the trunk" not in printed, said
    starts = [line for line in (out / "log.txt").read_text().splitlines() if "Starting training" in line]
    assert [line.split()[-1] for line in starts] == ["0", "2"]
    assert json.loads((out / "results.json").read_text())["weights"] == results["weights"]
    code, _, said = fine_tune(*started, "--resume", **{"INPUT.FORMAT": "BGR"})
    assert code == 2 and "INPUT.FORMAT is BGR, the weights need RGB" in said

    code, printed, said = fine_tune(
        monkeypatch, capsys, data, out / "model_final.pth", tmp_path / "test", "--eval-only"
    )
    assert code == 0, said
    again = json.loads((tmp_path / "test/results.json").read_text())["metrics"]
    assert again == pytest.approx(json.loads((out / "results.json").read_text())["metrics"])


@pytest.mark.parametrize("masks", [True, False])
def test_a_model_that_detects_nothing_is_scored_on_all_that_it_should_detect(data, tmp_path, masks):
    from detectron2.config import get_cfg
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from downstream.finetuning.worker import Trainer

    name = f"nothing_{masks}"
    annotations = str(data / "coco/annotations/instances_val2017.json")
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(json_file=annotations, evaluator_type="coco")
    cfg = get_cfg()
    cfg.MODEL.MASK_ON, cfg.OUTPUT_DIR = masks, str(tmp_path)
    evaluator = Trainer.build_evaluator(cfg, name)
    evaluator.reset()
    evaluator._predictions = [{"image_id": 1, "instances": []}]
    assert set(evaluator.evaluate()) == ({"bbox", "segm"} if masks else {"bbox"})


@pytest.mark.parametrize("config", ["coco_c4_1x", "coco_fpn_1x"])
def test_a_coco_run_gives_box_and_mask_ap(monkeypatch, capsys, data, resnet18, tmp_path, config):
    changes = {"SOLVER.MAX_ITER": "1"}
    started = (monkeypatch, capsys, data, resnet18, tmp_path / "run")
    code, printed, said = fine_tune(*started, config=config, names=COCO, **changes)
    assert code == 0, said
    names = [name for name in read_weights(resnet18).weights if "fpn" in config or not name.startswith("fpn_")]
    assert f"all {len(names)} tensors" in printed
    metrics = json.loads((tmp_path / "run/results.json").read_text())["metrics"]
    assert metrics.keys() >= {"bbox/AP", "segm/AP"}


@pytest.mark.parametrize("key", ["INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1"])
def test_a_config_that_does_not_fit_the_weights_stops_before_anything_runs(
    monkeypatch, capsys, data, resnet18, tmp_path, key
):
    started = (monkeypatch, capsys, data, resnet18, tmp_path / "run")
    code, _, said = fine_tune(*started, **{key: str(MSRA[key])})
    assert code == 2 and said.count("\n") == 1 and f"{key} is" in said and "weights_rgb.yaml" in said
    assert not (tmp_path / "run").exists()


def test_weights_that_detectron2_would_only_warn_about_stop_the_run(monkeypatch, capsys, data, resnet18, tmp_path):
    file = read_weights(resnet18)
    renamed = {name.replace("res3.", "stage3."): array for name, array in file.weights.items()}
    facts = {key: value for key, value in file.facts.items() if key != "__author__"}
    write_weights(tmp_path / "renamed.pkl", renamed, facts)
    code, _, said = fine_tune(monkeypatch, capsys, data, tmp_path / "renamed.pkl", tmp_path / "run")
    assert code == 2 and "trunk tensors did not come from" in said and "res3.0.conv1.weight" in said
    assert not (tmp_path / "run/last_checkpoint").exists()


def test_several_machines_need_a_place_to_meet(monkeypatch, capsys, data, resnet18, tmp_path):
    code, _, said = fine_tune(monkeypatch, capsys, data, resnet18, tmp_path / "run", "--num-machines", "2")
    assert code == 2 and "--dist-url tcp://HOST:PORT" in said


def test_nothing_to_resume_is_said(monkeypatch, capsys, data, resnet18, tmp_path):
    code, _, said = fine_tune(monkeypatch, capsys, data, resnet18, tmp_path / "run", "--resume")
    assert code == 2 and "nothing to resume" in said
