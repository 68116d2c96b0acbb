"""Each fine-tuning script really trains with detectron2, at sizes that a CPU does in seconds; skipped without it."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from downstream.conversion.convert import convert, described
from downstream.conversion.weights_file import write_weights
from pixpro.scenes import write_scenes
from pixpro.scenes.coco import write_coco
from tests.downstream.test_downstream_shell import SCRIPTS
from tests.helpers.detectron2_marks import NEEDS_DETECTRON2
from tests.helpers.trunks import encoder_of

pytestmark = NEEDS_DETECTRON2
PROJECT = Path(__file__).resolve().parents[2]
SMALL = (
    "--trial SOLVER.MAX_ITER 1 INPUT.MIN_SIZE_TRAIN 64, INPUT.MIN_SIZE_TEST 64 MODEL.RPN.POST_NMS_TOPK_TEST 4 "
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 4 TEST.PRECISE_BN.ENABLED False "
)
RESNET18 = "MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64"


def caffe2_name(name):
    """MSRA's name of a trunk tensor, like `res2_0_branch2a_bn_riv`."""
    parts = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    name = re.sub(r"norm\.(\w+)$", lambda match: f"bn_{parts[match[1]]}", name).replace(".weight", ".w")
    name = name.replace("shortcut", "branch1").replace("stem.conv1.bn", "res_conv1_bn").replace("stem.", "")
    if name.startswith(("res2.", "res3.", "res4.", "res5.")):
        for number, letter in zip("123", "abc", strict=True):
            name = name.replace(f"conv{number}", f"branch2{letter}")
    return name.replace(".", "_")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of downstream/ with weights and data in it, beside the package."""
    root = tmp_path_factory.mktemp("project")
    folder = root / "downstream"
    shutil.copytree(
        PROJECT / "downstream", folder, ignore=shutil.ignore_patterns("datasets", "output", "*.pkl", "__pycache__")
    )
    (root / "pixpro").symlink_to(PROJECT / "pixpro")
    small = convert(encoder_of("resnet18"), "resnet18")
    for name in ("pixpro", "pixcontrast"):
        write_weights(folder / f"{name}.pkl", small.weights, described(small, "resnet18"))
    weights = convert(encoder_of("resnet50"), "resnet50").weights
    msra = {caffe2_name(name): array for name, array in weights.items() if not name.endswith("num_batches_tracked")}
    (folder / "R-50.pkl").write_bytes(pickle.dumps(msra, protocol=2))
    scenes = write_scenes(folder / "datasets/VOC2007", 8)
    (folder / "datasets/VOC2012").symlink_to(scenes)
    write_coco(scenes, folder / "datasets/coco")
    return folder


def test_every_script_trains_and_writes_its_results_into_its_own_folder(project, tmp_path):
    hidden = ("DETECTRON2_DATASETS", "VIRTUAL_ENV", "CONDA_PREFIX")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "OMP_NUM_THREADS": "1"}
    shells = [name for name in ("bash", "zsh") if shutil.which(name)]

    def run(number, script):
        sourced = "source " if number % 4 < 2 else ""
        options = SMALL + ("" if "base" in script else RESNET18)
        command = [shells[number % len(shells)], "-c", f"{sourced}'{project / script}' {options}"]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500)

    with ThreadPoolExecutor(2) as pool:
        runs = dict(zip(SCRIPTS, pool.map(run, *zip(*enumerate(SCRIPTS), strict=True)), strict=True))
    for script, (program, config, _, weights, output) in SCRIPTS.items():
        assert runs[script].returncode == 0, f"{script}: {runs[script].stderr[-2000:]}"
        trunk = 265 if weights == "R-50" else 120
        assert re.search(rf"all {trunk} tensors of the trunk come from .*{weights}\.pkl", runs[script].stdout), script
        results = json.loads((project / "output" / output / "results.json").read_text())
        assert results["config"] == config and results["weights"]["path"] == str(project / f"{weights}.pkl")
        assert ("segm/AP" in results["metrics"]) == (program == "train_coco")
