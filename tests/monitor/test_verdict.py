"""What is said of rows: collapse and other failures by name, nothing about healthy ones, nothing twice in an epoch."""

import math

import pytest
import torch

from pixpro import PixContrast, PixPro
from pixpro.method.encoder import Embedding
from pixpro.monitor.verdict import Diagnosis, verdicts
from tests.helpers.small_runs import Unpropagated, rows_of, shrink, small_trainer

HEALTHY = {
    "epoch": 1,
    "loss": -2.2,
    "agreement": 0.55,
    "target_rank": 20.0,
    "target_std": 0.8,
    "within_image_rank": 12.0,
    "prediction_rank": 1.0,  # healthy runs pass through this while they warm up
    "without_overlap": 0.05,
    "grad_norm": 0.5,
    "lr": 2.0,
    "update_size": 0.002,
    "data_wait": 0.02,
}
COLLAPSED = {"loss": -3.99, "agreement": 0.998, "target_rank": 1.02, "within_image_rank": 1.01}
WITHIN = {"loss": -4.0, "agreement": 1.0, "target_rank": 56.0, "target_std": 0.99, "within_image_rank": 1.0}


def rows(*changes: dict) -> list[dict]:
    return [{"step": 20 * (i + 1), **HEALTHY, **change} for i, change in enumerate(changes)]


def kinds(*changes: dict, peak_lr: float = 4.0, total_steps: int = 10_000) -> list[str]:
    return [finding.kind for finding in verdicts(rows(*changes), peak_lr=peak_lr, total_steps=total_steps)]


def test_healthy_rows_are_not_accused():
    assert kinds({}, {}, {}) == []


def test_agreement_near_1_alone_is_no_collapse():
    assert kinds(*[{"loss": -3.9, "agreement": 0.975}] * 3) == []


@pytest.mark.parametrize("missing", [{}, {"agreement": None}])
def test_targets_in_one_direction_are_a_collapse(missing):
    assert kinds(*[COLLAPSED | missing] * 3) == ["collapse"]


def test_a_dip_from_which_a_run_rose_again_is_no_collapse():
    assert kinds(*[{"target_rank": rank, "within_image_rank": rank} for rank in (1.45, 1.41, 1.43)]) == []
    assert kinds(*[{"target_rank": rank, "within_image_rank": rank} for rank in (1.13, 1.10, 1.13)]) == ["collapse"]


def test_targets_that_are_constant_in_each_image_are_a_collapse_within_images():
    assert kinds(*[WITHIN] * 3) == ["collapse within images"]
    assert kinds(WITHIN, WITHIN, {}) == kinds(WITHIN, {}, WITHIN) == []
    assert kinds(*[{"within_image_rank": 1.37, "target_rank": 1.54}] * 3) == []  # the demo's PixPro, which then learns
    assert kinds(*[COLLAPSED] * 3) == ["collapse"]  # said once, and by its larger name


def test_one_odd_row_is_no_verdict():
    assert kinds(COLLAPSED, COLLAPSED, {}) == kinds(COLLAPSED, {}, COLLAPSED) == kinds(COLLAPSED, COLLAPSED) == []
    assert kinds({"loss": math.nan}, {}, {}) == []


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_losses_that_are_no_numbers_are_diverging(nothing):
    assert kinds({"loss": nothing, "agreement": nothing}, {}, {"loss": nothing, "agreement": nothing}) == ["diverging"]


def test_crops_that_mostly_miss_each_other_are_named():
    assert kinds(*[{"without_overlap": 0.9}] * 3) == ["no overlap"]
    assert kinds({"without_overlap": 0.9}, {}, {}) == []


def test_a_learning_rate_is_judged_at_its_peak_wherever_the_schedule_is():
    first, last = {"lr": 0.04, "update_size": 0.04 * 0.1}, {"lr": 1e-6, "update_size": 1e-9}
    assert kinds(*[first] * 3) == ["learning rate"]
    assert kinds(*[last] * 3) == []
    assert kinds(*[last] * 3, peak_lr=1e-4) == ["learning rate"]


def test_advice_on_a_large_learning_rate_leads_to_one_that_is_not_accused():
    large = {"lr": 100.0, "update_size": 0.1}
    (finding,) = verdicts(rows(large, large, large), peak_lr=400.0, total_steps=1000)
    factor = float(finding.text.split("divide --lr_base by ")[1])
    assert kinds(*[large] * 3, peak_lr=400.0 / factor) == []


def test_waiting_for_data_is_named():
    assert kinds(*[{"data_wait": 0.4}] * 3) == ["data wait"]


def test_numbers_that_were_not_recorded_are_not_judged():
    assert verdicts([{"step": i, "loss": 1.0} for i in range(5)], peak_lr=1.0, total_steps=10) == []


def test_each_kind_is_said_once_per_epoch():
    diagnosis = Diagnosis(peak_lr=4.0, total_steps=1000)
    said = [
        [
            finding.kind
            for finding in diagnosis.new({"step": step, **HEALTHY, **COLLAPSED, "epoch": (step - 1) // 4 + 1})
        ]
        for step in range(1, 9)
    ]
    assert said == [[], [], ["collapse"], [], ["collapse"], [], [], []]
    assert "health: collapse (last said in epoch 2)" in diagnosis.summary()
    assert "0.998 at step 1, 0.998 at step 8" in diagnosis.summary()


def test_the_summary_of_a_healthy_and_of_an_empty_run():
    diagnosis = Diagnosis(peak_lr=4.0, total_steps=1000)
    assert diagnosis.summary() == "health: nothing was left to train"
    diagnosis.new({"step": 1, **HEALTHY, "loss": math.nan, "agreement": math.nan})
    assert (
        diagnosis.summary() == "effective rank of the targets 20 at step 1, 20 at step 1\nhealth: nothing looked wrong"
    )


def run(
    model, lr: float = 1.0, momentum: float = 0.99, steps: int = 40, apart: bool = False, seed: int = 0
) -> list[str]:
    """Kinds of findings of a small real run."""
    diagnosis = Diagnosis(peak_lr=lr, total_steps=1000)
    torch.manual_seed(seed)
    model = shrink(model("resnet18", hidden_dim=16, dim=64))
    for row in rows_of(small_trainer(model, lr=lr, momentum=momentum, steps=steps), steps, report_every=4, apart=apart):
        diagnosis.new(row)
    return sorted(diagnosis.said)


def test_a_real_run_without_propagation_and_momentum_is_called_collapsed():
    assert run(Unpropagated, momentum=0.0) == ["collapse"]


class Unlocated(PixPro):
    """PixPro whose maps are constant within each image: the mean over its places stands in each of them."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.encoder.register_forward_hook(mean_everywhere)


def mean_everywhere(module: torch.nn.Module, args: tuple, embedding: Embedding) -> Embedding:
    return embedding._replace(maps=tuple(cells.mean((2, 3), keepdim=True).expand_as(cells) for cells in embedding.maps))


def test_a_real_run_with_constant_maps_is_called_collapsed_within_images():
    assert "collapse within images" in run(Unlocated, steps=16)


@pytest.mark.parametrize(
    ("method", "seed"), [(PixPro, 0), (PixPro, 1), (PixPro, 2), (PixContrast, 0), (PixContrast, 1)]
)
def test_five_real_runs_that_learn_are_not_accused(method, seed):
    assert run(method, seed=seed) == []


def test_a_real_run_with_a_hundred_times_the_learning_rate_is_called_so():
    assert "learning rate" in run(Unpropagated, lr=100.0, steps=12)


def test_a_real_run_on_crops_of_different_places_is_called_so():
    assert run(PixContrast, steps=12, apart=True) == ["no overlap"]


def test_a_real_run_that_learns_is_not_accused():
    assert run(PixContrast) == []
