"""Detection recipes: schedules follow the batch, and they and the precise statistics equal detectron2's."""

import pytest
import torch
from torch import nn

from downstream.common.precise_bn import precise_batchnorm
from downstream.detection.recipes import RECIPES, Recipe, scaled


@pytest.mark.parametrize(
    ("layout", "batch", "lr", "iterations", "drops", "warmup"),
    [
        ("voc", 16, 0.02, 24_000, (18_000, 22_000), 100),
        ("voc", 8, 0.01, 48_000, (36_000, 44_000), 200),
        ("voc", 2, 0.0025, 192_000, (144_000, 176_000), 800),
        ("coco", 16, 0.02, 90_000, (60_000, 80_000), 1000),
        ("coco", 4, 0.005, 360_000, (240_000, 320_000), 4000),
    ],
)
def test_a_smaller_batch_sees_as_many_images_with_the_rate_in_proportion(layout, batch, lr, iterations, drops, warmup):
    used = scaled(RECIPES[layout], batch=batch, scale=1)
    assert (used.lr, used.iterations, used.drops, used.warmup) == (pytest.approx(lr), iterations, drops, warmup)


def test_the_rate_warms_up_linearly_and_drops_twice():
    rate = RECIPES["voc"].learning_rate
    steps = {0: 0.00002, 50: 0.02 * 0.5005, 100: 0.02, 17_999: 0.02, 18_000: 0.002, 21_999: 0.002, 22_000: 0.0002}
    assert {step: rate(step) for step in steps} == pytest.approx(steps)


def test_precise_statistics_are_those_of_all_batches_together():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3)).eval()
    batches = [(torch.randn(count, 3, 5, 4) * 2 + 1,) for count in (2, 7, 4)]
    precise_batchnorm(net, batches)
    everything = torch.cat([batch for (batch,) in batches]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[0].running_mean, everything.mean(1))
    torch.testing.assert_close(net[0].running_var, everything.var(1, unbiased=False))
    assert net[0].momentum == 0.1 and not net.training


@pytest.mark.detectron2
def test_schedule_and_precise_statistics_equal_those_of_detectron2():
    pytest.importorskip("detectron2", reason="detectron2 is not on the path", exc_type=ImportError)
    from detectron2.config import get_cfg
    from detectron2.solver import build_lr_scheduler
    from fvcore.nn.precise_bn import update_bn_stats

    recipe: Recipe = scaled(RECIPES["voc"], batch=16, scale=0.02)
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = recipe.lr, recipe.iterations, recipe.drops
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR = recipe.warmup, 0.001
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    scheduler = build_lr_scheduler(cfg, optimizer)
    for step in range(recipe.iterations):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(recipe.learning_rate(step), rel=1e-9), step
        optimizer.step()
        scheduler.step()

    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    batches = [torch.randn(count, 3, 6, 6) for count in (2, 5, 3)]
    precise_batchnorm(ours, [(batch,) for batch in batches])
    update_bn_stats(theirs, batches, num_iters=3)
    torch.testing.assert_close(ours[1].running_mean, theirs[1].running_mean)
    torch.testing.assert_close(ours[1].running_var, theirs[1].running_var)
