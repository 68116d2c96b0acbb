"""Pre-training on the trunk's own map of one level: the map, what is trained, and what is left as it was."""

import pytest
import torch

from pixpro import PixPro, View
from pixpro.method.encoder import Encoder
from pixpro.monitor.matching import encoder_matching
from pixpro.training.optim import LARS, parameter_groups

SMALL = {"hidden_dim": 16, "dim": 8}


@pytest.mark.parametrize("level, cells, channels", [(2, 16, 64), (3, 8, 128), (4, 4, 256), (5, 2, 512)])
def test_the_projected_map_is_that_of_the_whole_trunk_s_stage(level, cells, channels):
    torch.manual_seed(0)
    encoder = Encoder("resnet18", **SMALL, neck="stage", levels=[level], instance=True)
    whole = Encoder("resnet18", **SMALL)
    whole.load_state_dict(encoder.state_dict(), strict=False) if level == 5 else whole.load_state_dict(
        {name: tensor for name, tensor in encoder.state_dict().items() if "projector" not in name}, strict=False
    )
    images = torch.randn(2, 3, 64, 64)
    encoder.eval(), whole.eval()
    expected = whole.features(images)[f"c{level}"]
    assert expected.shape == (2, channels, cells, cells)
    found = encoder(images)
    torch.testing.assert_close(found.maps[0], encoder.projector(expected))
    torch.testing.assert_close(found.instance, encoder.instance_projector(expected))
    assert (encoder.level, encoder.dense) == (level, f"c{level}")


def test_a_step_trains_everything_up_to_the_stage_and_nothing_above_it():
    torch.manual_seed(0)
    model = PixPro("resnet18", **SMALL, neck="stage", levels=[3], instance_weight=1.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = LARS(parameter_groups(model, 1e-5), lr=1.0)
    views = [View(torch.randn(4, 3, 64, 64), torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 4)) for _ in range(2)]
    model(*views).backward()
    assert {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None} == set()
    optimizer.step()
    model.update_momentum(0.5)
    above = tuple(f"{part}encoder.layer{stage}." for part in ("", "momentum_") for stage in (3, 4))
    for name, tensor in model.state_dict().items():
        if name.startswith(above):
            assert torch.equal(tensor, before[name]), name
        elif tensor.ndim > 1:
            assert not torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("neck, levels, cells", [("none", [3, 4, 5], 2), ("fpn", [3, 4], 4), ("stage", [3], 8)])
def test_matching_is_judged_on_the_trunk_s_map_that_the_loss_works_on(neck, levels, cells):
    encoder = Encoder("resnet18", **SMALL, neck=neck, levels=levels)
    view = View(torch.randn(2, 3, 64, 64), torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2))
    scores = encoder_matching(encoder, (view, view))
    assert scores["trunk"].accuracy == scores["projector"].accuracy == 1
    assert scores["trunk"].cells == scores["projector"].cells == 2 * cells**2


def test_a_stage_is_one_level():
    with pytest.raises(ValueError, match="one level"):
        Encoder("resnet18", **SMALL, neck="stage", levels=[3, 4])
