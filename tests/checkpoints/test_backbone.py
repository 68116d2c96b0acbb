"""Backbones from checkpoints: the right network, whole, or a clear refusal."""

import re

import pytest
import torch
import torchvision
from torch import nn

import pixpro
from pixpro.checkpoints.initialise import initialise
from pixpro.checkpoints.trunk import arch_of, check_trunk, trunk_of
from pixpro.errors import UserError
from pixpro.method.trunks import ARCHS
from tests.helpers import foreign_models as foreign
from tests.helpers.small_models import saved, small_model


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "pixpro.pth"
    return saved(path, lambda: foreign.Official(instance=True), epoch=100)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_arch_is_told_from_the_shapes(arch):
    with torch.device("meta"):
        model = torchvision.models.get_model(arch, weights=None)
    trunk = {name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in model.state_dict().items()}
    assert arch_of(trunk_of({f"encoder.{name}": tensor for name, tensor in trunk.items()})) == arch


def test_a_backbone_has_the_checkpoints_features_and_no_classifier(official):
    path, theirs = official
    model = pixpro.load_backbone(path).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), nn.functional.adaptive_avg_pool2d(theirs.encoder(images), 1).flatten(1))
    assert isinstance(model.fc, nn.Identity)
    assert type(model) is torchvision.models.ResNet


def test_the_wrong_arch_is_refused(official):
    with pytest.raises(UserError, match="holds a resnet18, not a resnet50"):
        pixpro.load_backbone(official[0], "resnet50")


@pytest.mark.parametrize(
    "drop, told",
    [
        (r"conv1\.weight", "1 of 100 tensors missing, first conv1.weight"),
        (r"layer4\..*", "tensors missing, first layer4.0.conv1.weight"),
        (r"layer2\.1\.bn2\.running_var", "1 of 100 tensors missing, first layer2.1.bn2.running_var"),
        (r".*", "no backbone in it"),
    ],
)
def test_partial_and_empty_trunks_are_refused(tmp_path, drop, told):
    state = small_model().state_dict()
    kept = {n: t for n, t in state.items() if not re.fullmatch(rf"(momentum_)?encoder\.{drop}", n)}
    torch.save({"model": kept | {"encoder.projector.linear1.bias": torch.zeros(2)}}, tmp_path / "partial.pth")
    with pytest.raises(UserError, match=re.escape(told)):
        pixpro.load_backbone(tmp_path / "partial.pth")


def test_a_trunk_with_nan_is_refused(tmp_path):
    state = small_model().state_dict()
    state["encoder.layer3.0.bn1.running_mean"][0] = torch.nan
    torch.save({"model": state}, tmp_path / "nan.pth")
    with pytest.raises(UserError, match="NaN or infinite values in 1 tensors"):
        pixpro.load_backbone(tmp_path / "nan.pth")


def test_a_trunk_with_a_block_too_many_is_refused():
    trunk = trunk_of(small_model().state_dict())
    with pytest.raises(UserError, match="1 of 100 tensors too many, first layer4.2.conv1.weight"):
        check_trunk(trunk | {"layer4.2.conv1.weight": torch.zeros(1)}, "resnet18")


def test_old_files_without_batch_counters_are_whole(tmp_path):
    model = small_model()
    state = {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save({"model": state}, tmp_path / "old.pth")
    loaded = pixpro.load_backbone(tmp_path / "old.pth").state_dict()
    assert torch.equal(loaded["layer4.1.conv2.weight"], state["encoder.layer4.1.conv2.weight"])
    assert "used backbone" in initialise(model, str(tmp_path / "old.pth"))


def test_half_precision_weights_become_float32(tmp_path):
    torch.save({"model": small_model().half().state_dict()}, tmp_path / "half.pth")
    assert {p.dtype for p in pixpro.load_backbone(tmp_path / "half.pth").parameters()} == {torch.float32}


def test_torch_hub_gives_the_same_backbone(official):
    from pathlib import Path

    repository = Path(__file__).parents[2]
    model = torch.hub.load(str(repository), "pixpro_resnet18", official[0], source="local")
    same = pixpro.load_backbone(official[0])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    with pytest.raises(UserError, match="holds a resnet18, not a resnet50"):
        torch.hub.load(str(repository), "pixpro_resnet50", official[0], source="local")
