"""Exported files load where they are meant to, with the checkpoint's features bit by bit, or are not written."""

import functools
import hashlib
import json
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors
import torch
import torchvision
from torch import nn

import pixpro
from pixpro.checkpoints import export as exporting
from pixpro.checkpoints.convert import read_checkpoint
from pixpro.checkpoints.export import FORMATS, export, main
from pixpro.errors import UserError
from tests.helpers import foreign_models as foreign
from tests.helpers.foreign_models import randomised, wrapped

IMAGES = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint as train.py writes it, and its model in eval mode."""
    make = lambda: pixpro.PixPro("resnet18", hidden_dim=foreign.HIDDEN, dim=foreign.DIM)  # noqa: E731
    model = randomised(make).float()
    path = tmp_path_factory.mktemp("run") / "last.pth.tar"
    torch.save({"model": model.state_dict(), "config": {"loss": "pixpro"}, "epoch": 12, "step": 34}, path)
    return path, model


def features(model: nn.Module) -> torch.Tensor:
    """Pooled features of the online trunk of a PixPro."""
    with torch.no_grad():
        return nn.functional.adaptive_avg_pool2d(model.encoder.features(IMAGES)["c5"], 1).flatten(1)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """One export of the trained checkpoint in each format, made when first asked for."""

    @functools.cache
    def exported(format: str) -> Path:
        return export(trained[0], tmp_path_factory.mktemp(format) / "out.pth", format)

    return exported


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_backbone_has_the_checkpoints_features_bit_by_bit(trained, exported, format):
    with torch.no_grad():
        assert torch.equal(pixpro.load_backbone(exported(format)).eval()(IMAGES), features(trained[1]))


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_tells_what_it_is(trained, exported, format):
    checkpoint = read_checkpoint(exported(format))
    assert (checkpoint.arch, checkpoint.method, checkpoint.epoch) == ("resnet18", "pixpro", 12)
    assert checkpoint.config["channels"] == "RGB" and "STRIDE_IN_1X1 False" in checkpoint.config["stride"]
    assert checkpoint.config["checkpoint_sha256"] == hashlib.sha256(trained[0].read_bytes()).hexdigest()
    mean = checkpoint.config["mean"]
    assert (json.loads(mean) if isinstance(mean, str) else mean) == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_may_be_read_by_those_who_may_read_other_new_files(exported, tmp_path, format):
    (tmp_path / "new").write_text("")
    assert exported(format).stat().st_mode == (tmp_path / "new").stat().st_mode


def test_an_export_exports_again(exported, tmp_path):
    again = read_checkpoint(export(exported("torchvision"), tmp_path / "again", "mmdet"))
    assert (again.arch, again.method, again.epoch) == ("resnet18", "pixpro", 12)


def test_torchvision_itself_loads_the_export(trained, exported):
    state = torch.load(exported("torchvision"), weights_only=True)
    model = torchvision.models.resnet18(weights=None)
    assert set(model.load_state_dict(state, strict=False).missing_keys) == {"fc.weight", "fc.bias"}
    model.fc = nn.Identity()
    with torch.no_grad():
        assert torch.equal(model.eval()(IMAGES), features(trained[1]))
    assert state.metadata["epoch"] == 12


def test_timm_itself_loads_the_export(trained, exported):
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", num_classes=0, checkpoint_path=str(exported("timm"))).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), features(trained[1]))


def test_safetensors_itself_reads_the_export(trained, exported):
    with safetensors.safe_open(exported("safetensors"), framework="pt") as file:
        assert file.metadata()["arch"] == "resnet18" and file.metadata()["epoch"] == "12"
        assert torch.equal(file.get_tensor("conv1.weight"), trained[1].encoder.conv1.weight)


def test_mmdet_finds_a_state_dict_with_its_resnets_names(exported):
    contents = torch.load(exported("mmdet"), weights_only=True)
    assert contents["meta"]["arch"] == "resnet18"
    # mmdet's ResNet of style "pytorch": torchvision's names without fc.
    names = {name for name in torchvision.models.resnet18(weights=None).state_dict() if not name.startswith("fc.")}
    assert set(contents["state_dict"]) == names


@pytest.mark.parametrize(
    "make, key",
    [(foreign.Official, "model"), (foreign.Seed, "state_dict"), (foreign.MoCo, "state_dict")],
    ids=["official", "seed", "moco"],
)
def test_foreign_checkpoints_export_their_online_trunk(tmp_path, make, key):
    theirs = randomised(make).float()
    torch.save({key: wrapped(theirs.state_dict()), "epoch": 3}, tmp_path / "foreign.pth")
    exported = pixpro.load_backbone(export(tmp_path / "foreign.pth", tmp_path / "out.pth")).state_dict()
    online = {"model": "encoder", "state_dict": "base_encoder" if make is foreign.Seed else "encoder_q"}[key]
    trunk = getattr(theirs, online).state_dict()
    assert exported and all(torch.equal(tensor, trunk[name]) for name, tensor in exported.items())


def test_the_hash_in_the_name_is_the_files(trained, tmp_path):
    out = export(trained[0], tmp_path / "pixpro.pth", add_hash=True)
    assert out.name == f"pixpro-{hashlib.sha256(out.read_bytes()).hexdigest()[:8]}.pth"
    # The form in which torch.hub checks downloads.
    assert re.search(r"-([a-f0-9]*)\.", out.name)


@pytest.mark.parametrize("kept", ["momentum_encoder.", "encoder.projector.", "encoder.layer1."])
def test_empty_and_partial_trunks_are_refused_and_nothing_is_written(trained, tmp_path, capsys, kept):
    state = {name: tensor for name, tensor in trained[1].state_dict().items() if name.startswith(kept)}
    torch.save({"model": state | {"encoder.projector.bn1.bias": torch.ones(1)}}, tmp_path / "partial.pth")
    assert main([str(tmp_path / "partial.pth"), str(tmp_path / "out.pth")]) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"error: .*partial\.pth: (no backbone in it|not a whole resnet).*\n", captured.err)
    assert captured.out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["partial.pth"]


def test_an_export_that_reads_back_differently_is_not_kept(trained, tmp_path, monkeypatch):
    def one_bit_off(trunk, arch):
        model = backbone(trunk, arch)
        with torch.no_grad():
            model.layer4[1].bn2.bias[3] = torch.nextafter(model.layer4[1].bn2.bias[3], torch.tensor(10.0))
        return model

    backbone = exporting.backbone
    monkeypatch.setattr(exporting, "backbone", one_bit_off)
    with pytest.raises(UserError, match="reads back with features unlike"):
        export(trained[0], tmp_path / "out.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(trained, tmp_path, monkeypatch):
    (tmp_path / "out.pth").write_text("old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write", full)
    with pytest.raises(UserError, match="cannot be written .No space left"):
        export(trained[0], tmp_path / "out.pth")
    assert (tmp_path / "out.pth").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_checkpoint_is_not_overwritten_by_its_export(trained, tmp_path):
    with pytest.raises(UserError, match="the checkpoint itself"):
        export(trained[0], trained[0])
    with pytest.raises(UserError, match="a folder"):
        export(trained[0], tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        export(trained[0], tmp_path / "none" / "out.pth")


def test_the_command_line_reports_what_it_wrote(trained, tmp_path, capsys):
    assert main([str(trained[0]), str(tmp_path / "out.pth"), "--format", "timm", "--hash"]) == 0
    (written,) = tmp_path.iterdir()
    assert capsys.readouterr().out == f"wrote {written} (timm); read back with the same features\n"


@pytest.mark.parametrize("content", [b"", b"text", OrderedDict(a=torch.ones(1))], ids=["empty", "text", "foreign"])
def test_files_that_are_no_checkpoints_are_one_line(tmp_path, capsys, content):
    source = tmp_path / "source.pth"
    source.write_bytes(content) if isinstance(content, bytes) else torch.save(content, source)
    assert main([str(source), str(tmp_path / "out.pth")]) == 2
    assert re.fullmatch(r"error: \S*source\.pth: [^\n]+\n", capsys.readouterr().err)


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none.pth"), str(tmp_path / "out.pth")]) == 2
    assert re.fullmatch(r"error: \S*none\.pth: no such file; [^\n]+\n", capsys.readouterr().err)
