"""What each process of a fine-tuning run does: build, load, prove the weights arrived, train, test, write results."""

import argparse
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from torch import Tensor

from downstream.common.published import results_table
from downstream.conversion.weights_file import WeightsFile, read_weights
from downstream.finetuning.extensions import VocEvaluator  # and registers Res5ROIHeadsExtraNorm
from downstream.finetuning.own_data import OwnData, register
from pixpro.errors import UserError

TRUNK = re.compile(r"(?:.*\.)?((?:stem|res[2-5]\.\d+|fpn_(?:lateral|output)[2-5])\..+)")


class Trainer(DefaultTrainer):
    """detectron2's trainer with the evaluators of VOC and COCO."""

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.evaluator_type == "own_voc":
            return VocEvaluator(metadata.images)
        if metadata.evaluator_type == "pascal_voc":
            return PascalVOCDetectionEvaluator(dataset_name)
        # Left alone it scores what it finds among the detections, so without any it forgets the masks.
        tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
        return COCOEvaluator(dataset_name, tasks, output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"))


def work(
    cfg: CfgNode,
    arguments: argparse.Namespace,
    weights: Path | None,
    own: OwnData | None,
    files: dict[str, Path],
    notes: list[str],
) -> None:
    """Train or test as the arguments say; the first process writes results.json and prints the table.

    weights: the checked file to start from. own: the data, where it is not the benchmark's, and its JSON files. notes:
    what was changed because of the batch, the machine or the data, to stand beside the results.
    """
    if own is not None:
        register(own, files)  # a process of its own starts with detectron2's data sets
    default_setup(cfg, argparse.Namespace(config_file=str(arguments.config_file), eval_only=arguments.eval_only))
    if arguments.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=arguments.resume)
        metrics = flatten_results_dict(Trainer.test(cfg, model) or {})
    else:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=arguments.resume)
        facts: dict[str, Any] = {}
        if weights is not None and weights.suffix == ".pkl":
            file = read_weights(weights)
            facts = file.facts
            count = check_loaded(trainer.checkpointer.model.state_dict(), file)
            if comm.is_main_process():
                print(f"all {count} tensors of the trunk come from {weights}", flush=True)
        if comm.is_main_process() and not arguments.resume:
            remember_weights(cfg, facts)
        trainer.train()
        metrics = {name: value for name, (value, _) in trainer.storage.latest().items() if "/AP" in name}
    if comm.is_main_process():
        write_results(cfg, arguments, metrics, notes)


def check_loaded(model: dict[str, Tensor], file: WeightsFile) -> int:
    """The number of trunk tensors that the model took from the file.

    Raises UserError unless every trunk tensor of the model equals the file's: detectron2 itself only logs a
    warning for names and shapes that do not fit, and goes on from random initialisation.
    """
    arrays = {name: torch.as_tensor(array) for name, array in file.weights.items()}
    optional = ("num_batches_tracked",)
    if file.writer.startswith("MSRA"):
        arrays, _ = convert_c2_detectron_names(arrays)
        optional = ("num_batches_tracked", "running_mean", "running_var")  # may be folded into weight and bias
    trunk = {match[1]: tensor for name, tensor in model.items() if (match := TRUNK.fullmatch(name))}
    # A pyramid may be absent from the file, whole or in blocks that were not trained; detectron2 initialises those.
    blocks = {name.split(".")[0] for name in arrays}
    trunk = {name: tensor for name, tensor in trunk.items() if name[:3] != "fpn" or name.split(".")[0] in blocks}
    needed = {name for name in trunk if name in arrays or not name.endswith(optional)}
    wrong = [name for name in sorted(needed) if name not in arrays or not torch.equal(trunk[name].cpu(), arrays[name])]
    if wrong or not needed:
        raise UserError(
            f"{len(wrong)} of {len(needed)} trunk tensors did not come from {file.path}, first {wrong[:1]}; "
            "the weights do not fit this model"
        )
    return len(needed)


def remember_weights(cfg: CfgNode, facts: dict[str, Any]) -> None:
    """Keep what the weights say of themselves in the output folder: a resumed run does not read them again."""
    content = json.dumps({"path": cfg.MODEL.WEIGHTS, **facts}, indent=2, default=str)
    Path(cfg.OUTPUT_DIR, "weights.json").write_text(content + "\n")


def write_results(cfg: CfgNode, arguments: argparse.Namespace, metrics: dict[str, float], notes: list[str]) -> None:
    """Write results.json and print the table with the published numbers."""
    remembered = Path(cfg.OUTPUT_DIR, "weights.json")
    weights = json.loads(remembered.read_text()) if remembered.is_file() else {"path": cfg.MODEL.WEIGHTS}
    numbers = {name: value if math.isfinite(value) else None for name, value in sorted(metrics.items())}
    changes = dict(zip(arguments.options[::2], arguments.options[1::2], strict=True))
    config = arguments.config_file.stem
    results = {
        "metrics": numbers,
        "config": config,
        "changes": changes,
        "notes": notes,
        "weights": weights,
        "test_sets": list(cfg.DATASETS.TEST),
        "iterations": cfg.SOLVER.MAX_ITER,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "lr": cfg.SOLVER.BASE_LR,
        "norm": cfg.MODEL.RESNETS.NORM,
        "processes": comm.get_world_size(),
        "device": cfg.MODEL.DEVICE,
        "versions": {"torch": torch.__version__, "detectron2": detectron2.__version__},
    }
    path = Path(cfg.OUTPUT_DIR) / "results.json"
    path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    name = Path(weights["path"]).stem or "random weights"
    label = f"{name}, {cfg.SOLVER.MAX_ITER} iterations of {cfg.SOLVER.IMS_PER_BATCH}"
    print(f"\n{results_table(config, label, numbers)}")
    if changes or notes:
        print("this run is not under the published settings:")
        for line in (*(f"{key} {value}" for key, value in changes.items()), *notes):
            print(f"  {line}")
    print(f"wrote {path}", flush=True)
