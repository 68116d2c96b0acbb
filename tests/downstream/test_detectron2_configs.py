"""Our configs as detectron2 reads and scales them, and config changes that are refused."""

from pathlib import Path

import pytest

from pixpro.errors import UserError
from tests.helpers.detectron2_marks import NEEDS_DETECTRON2
from tests.helpers.detectron2_settings import COMMON, MSRA, PUBLISHED, RGB

pytestmark = [*NEEDS_DETECTRON2, pytest.mark.filterwarnings("ignore")]
CONFIGS = Path(__file__).resolve().parents[2] / "downstream" / "configs"


@pytest.mark.parametrize("name", PUBLISHED)
def test_detectron2_reads_the_published_settings_from_our_configs(name):
    from downstream.finetuning.config import build_config
    from downstream.finetuning.config_check import lookup

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
