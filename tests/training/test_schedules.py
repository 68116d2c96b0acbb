"""Schedules equal hand-computed values and torch's own scheduler."""

import math

import pytest
import torch

from pixpro.training.schedules import cosine_momentum, momentum_steps, scaled_lr, warmup_cosine_lr


def test_warm_up_is_linear_and_the_rest_a_cosine():
    def lr(step):
        return warmup_cosine_lr(step, base_lr=4.0, total_steps=100, warmup_steps=20)

    assert lr(0) == pytest.approx(0.04)
    assert lr(10) == pytest.approx(0.04 * (99 * 10 / 20 + 1))
    assert lr(20) == pytest.approx(4.0)
    assert lr(60) == pytest.approx(1e-6 + (4 - 1e-6) / 2)
    assert lr(100) == pytest.approx(1e-6)
    steps = [lr(step) for step in range(101)]
    assert all(a < b for a, b in zip(steps[:20], steps[1:21], strict=True))
    assert all(a > b for a, b in zip(steps[20:-1], steps[21:], strict=True))


def test_after_warm_up_it_equals_torchs_cosine_annealing():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=4.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=80, eta_min=1e-6)
    for step in range(20, 100):
        expected = scheduler.get_last_lr()[0]
        assert warmup_cosine_lr(step, base_lr=4.0, total_steps=100, warmup_steps=20) == pytest.approx(
            expected, rel=1e-9
        )
        optimizer.step()
        scheduler.step()


def test_without_warm_up_the_first_rate_is_the_peak():
    assert warmup_cosine_lr(0, base_lr=2.0, total_steps=10) == pytest.approx(2.0)


def test_momentum_rises_from_its_base_to_one():
    assert cosine_momentum(0, 40) == pytest.approx(0.99)
    assert cosine_momentum(20, 40) == pytest.approx(0.995)
    assert cosine_momentum(40, 40) == pytest.approx(1.0)
    assert cosine_momentum(10, 40, base=0.5) == pytest.approx(1 - 0.5 * (math.cos(math.pi / 4) + 1) / 2)


def test_the_published_batch_has_the_published_rate_under_both_rules():
    assert scaled_lr(1.0, 1024) == scaled_lr(1.0, 1024, "sqrt") == 4.0
    assert scaled_lr(1.0, 512) == 2.0
    assert scaled_lr(1.0, 512, "sqrt") == pytest.approx(2.83, abs=0.01)
    with pytest.raises(ValueError, match="cubic"):
        scaled_lr(1.0, 512, "cubic")


def test_the_momentum_schedule_of_imagenet_has_the_published_length():
    assert momentum_steps(1281167, 1024, 100) == 125113
