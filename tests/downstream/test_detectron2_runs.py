"""Fine-tuning in detectron2 itself, on the CPU: runs, their results, and what stops them before they start."""

import json
import sys

import pytest

from downstream.conversion.convert import convert, described
from downstream.conversion.weights_file import read_weights, write_weights
from downstream.finetuning import command as finetune
from tests.helpers.detection_data import write_detection_data
from tests.helpers.detectron2_marks import NEEDS_DETECTRON2
from tests.helpers.detectron2_settings import MSRA
from tests.helpers.trunks import encoder_of, neck_of

pytestmark = [*NEEDS_DETECTRON2, pytest.mark.filterwarnings("ignore")]
VOC = ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test")
COCO = ("coco_2017_train", "coco_2017_val")
# On top of --trial, so that a run takes seconds; the trunk's shape comes from the weights.
SMALL = {
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
    return write_detection_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    """A converted resnet18 with a pyramid."""
    conversion = convert(encoder_of("resnet18") | neck_of([64, 128, 256, 512], 256), "resnet18")
    path = tmp_path_factory.mktemp("weights") / "resnet18.pkl"
    write_weights(path, conversion.weights, described(conversion, "resnet18"))
    return path


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
    assert results["weights"]["arch"] == "resnet18" and "BN for SyncBN" in "".join(results["notes"])
    assert "the trunk of the weights: MODEL.RESNETS.DEPTH 18, MODEL.RESNETS.RES2_OUT_CHANNELS 64" in results["notes"]
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
