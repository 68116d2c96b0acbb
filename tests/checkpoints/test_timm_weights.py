"""Weights of timm's backbones: read from timm's files, folders and the hub, taken as a start, refused in one line."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

import pixpro
from pixpro import load_backbone
from pixpro.checkpoints import initialise as initialising
from pixpro.checkpoints.convert import read_checkpoint
from pixpro.checkpoints.export import export, main
from pixpro.checkpoints.initialise import initialise
from pixpro.checkpoints.model_folder import CARD, CONFIG, WEIGHTS
from pixpro.errors import UserError
from pixpro.method.trunks import Pyramid, trunk_tensors

timm = pytest.importorskip("timm")
ARCH = "timm/regnetx_002"
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))


def new_model(seed: int = 0, **options: object) -> pixpro.PixPro:
    torch.manual_seed(seed)
    return pixpro.PixPro(ARCH, hidden_dim=8, dim=4, **options)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint as train.py writes it, and its model."""
    model = new_model(1)
    path = tmp_path_factory.mktemp("run") / "last.pth.tar"
    config = {"loss": "pixpro", "arch": ARCH, "image_size": 64, "neck": "stage", "levels": [4], "lr_base": 0.5}
    torch.save({"model": model.state_dict(), "config": config, "epoch": 7}, path)
    return path, model


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    return export(checkpoint[0], tmp_path_factory.mktemp("folder") / "model", "folder")


@torch.no_grad()
def maps(model: torch.nn.Module) -> list[torch.Tensor]:
    return list(Pyramid(model).eval()(IMAGES).values())


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def encoder_maps(model: pixpro.PixPro) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(model.encoder.eval().features(IMAGES).values())


def test_a_file_of_timms_own_is_read_when_its_arch_is_named(tmp_path):
    theirs = timm.create_model("regnetx_002", num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    loaded = load_backbone(tmp_path / "timm.pth", ARCH)
    assert same(maps(loaded), maps(theirs))
    assert read_checkpoint(tmp_path / "timm.pth", ARCH).left == ("head.fc.weight", "head.fc.bias")
    with pytest.raises(UserError, match="no known names|no backbone"):
        load_backbone(tmp_path / "timm.pth")


def test_a_run_starts_from_a_file_of_timms(tmp_path):
    theirs, model = timm.create_model("regnetx_002"), new_model()
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    said = initialise(model, str(tmp_path / "timm.pth"))
    assert "used backbone; left in the file: head.fc; missing: projector (fresh)" in said
    assert same(encoder_maps(model), maps(theirs))
    online, momentum = model.encoder.trunk.state_dict(), model.momentum_encoder.trunk.state_dict()
    assert all(torch.equal(tensor, momentum[name]) for name, tensor in online.items())


def test_a_run_starts_from_timms_pretrained_weights(monkeypatch):
    made = timm.create_model("regnetx_002", num_classes=0)

    def fetched(arch: str, *, pretrained: bool) -> torch.nn.Module:
        assert (arch, pretrained) == (ARCH, True)
        return made

    monkeypatch.setattr(initialising, "timm_model", fetched)
    model = new_model()
    assert "init from timm's pre-trained weights of timm/regnetx_002: used backbone" in initialise(model, "timm")
    assert same(encoder_maps(model), maps(made))


def test_weights_that_cannot_be_fetched_are_one_line_with_a_way_out(monkeypatch):
    def unreachable(arch: str, *, pretrained: bool) -> torch.nn.Module:
        raise ConnectionError("no route to host\nat all")

    monkeypatch.setattr(initialising, "timm_model", unreachable)
    with pytest.raises(UserError, match=r"could not be fetched \(no route to host at all\); .* --init FILE"):
        initialise(new_model(), "timm")


def test_another_backbone_is_refused(checkpoint):
    path, _ = checkpoint
    with pytest.raises(UserError, match="holds a timm/regnetx_002, not a timm/convnext_atto"):
        load_backbone(path, "timm/convnext_atto")
    model = pixpro.PixPro("resnet18", hidden_dim=8, dim=4)
    with pytest.raises(UserError, match="holds a timm/regnetx_002, the model is a resnet18"):
        initialise(model, str(path))


def test_a_trunk_that_is_not_whole_is_refused(checkpoint, tmp_path):
    path, model = checkpoint
    state = {name: tensor for name, tensor in model.state_dict().items() if "trunk.s4." not in name}
    torch.save({"model": state, "config": {"arch": ARCH}}, tmp_path / "partial.pth")
    with pytest.raises(UserError, match=r"not a whole timm/regnetx_002: \d+ of \d+ tensors missing, first s4\."):
        load_backbone(tmp_path / "partial.pth")


@pytest.mark.parametrize("arch", ["timm/no_such_model", "timm/hf-hub:a/b", "timm/vit_tiny_patch16_224"])
def test_a_file_that_names_what_timm_has_not_is_refused(tmp_path, arch):
    torch.save({"model": {"encoder.trunk.x": torch.zeros(1)}, "config": {"arch": arch}}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="has no model|maps of stride 16"):
        load_backbone(tmp_path / "bad.pth")


@pytest.mark.parametrize("format", ["torchvision", "mmdet"])
def test_formats_of_other_libraries_are_refused_in_one_line(checkpoint, tmp_path, capsys, format):
    assert main([str(checkpoint[0]), str(tmp_path / "out"), "--format", format]) == 2
    error = capsys.readouterr().err
    assert f"--format {format} cannot hold a {ARCH}; use --format timm, safetensors, folder\n" in error
    assert not (tmp_path / "out").exists()


def test_the_default_format_of_timms_backbones_is_timms(checkpoint, tmp_path):
    out = export(checkpoint[0], tmp_path / "out.pth")
    assert torch.load(out, weights_only=True)["arch"] == ARCH


def test_a_folder_says_what_it_holds(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, CONFIG, WEIGHTS])
    config = json.loads((folder / CONFIG).read_text())
    assert (config["architecture"], config["num_classes"], config["pixpro"]["arch"]) == ("regnetx_002", 0, ARCH)
    assert timm.__version__ in config["pixpro"]["library"] and torch.__version__ in config["pixpro"]["library"]
    card = (folder / CARD).read_text()
    assert "| lr_base | `0.5` |" in card and "7 epochs" in card
    assert "What follows c4 is as initialised: the loss saw c4." in card
    assert (read_checkpoint(folder).arch, read_checkpoint(folder).epoch) == (ARCH, 7)


def test_a_folder_exports_again(checkpoint, folder, tmp_path):
    again = load_backbone(export(folder, tmp_path / "again.pth"))
    assert same(maps(again), encoder_maps(checkpoint[1]))


def test_a_folder_of_timms_own_is_read(tmp_path):
    from safetensors.torch import save_file

    theirs = timm.create_model("regnetx_002", num_classes=3)
    save_file(theirs.state_dict(), tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_text(json.dumps({"architecture": "regnetx_002", "num_classes": 3}))
    assert same(maps(load_backbone(tmp_path)), maps(theirs))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"architecture": 3}', '{"pixpro": 3}', "[" * 100_000])
def test_a_folder_with_another_config_is_one_line(folder, tmp_path, text):
    (tmp_path / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(UserError):
        load_backbone(tmp_path)


def test_a_folder_without_weights_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no model.safetensors in it"):
        load_backbone(tmp_path)


def test_a_repository_of_the_hub_is_its_folder(checkpoint, folder, monkeypatch):
    asked = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, sorted(allow_patterns)))
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    assert same(maps(load_backbone("hf-hub:me/model@v1")), encoder_maps(checkpoint[1]))
    assert same(maps(load_backbone("hf-hub:me/model", ARCH)), encoder_maps(checkpoint[1]))
    wanted = sorted([WEIGHTS, CONFIG, CARD])
    assert asked == [("me/model", "v1", wanted), ("me/model", None, wanted)]


def test_a_hub_out_of_reach_or_without_its_package_is_one_line(monkeypatch):
    def snapshot_download(*args: object, **options: object) -> str:
        raise OSError("offline\nand more")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(UserError, match=r"^hf-hub:me/model: not here and could not be fetched \(offline and more\)$"):
        load_backbone("hf-hub:me/model")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs the package huggingface_hub: pip install -e .\[timm\]"):
        load_backbone("hf-hub:me/model")


def test_without_timm_its_checkpoints_are_one_line(checkpoint, monkeypatch):
    from pixpro.checkpoints import trunk

    monkeypatch.setitem(sys.modules, "timm", None)
    for cached in (trunk.trunk_shapes, trunk_tensors):
        cached.cache_clear()
    with pytest.raises(UserError, match=r"need the package timm: pip install -e .\[timm\]"):
        load_backbone(checkpoint[0])


def test_a_folder_of_a_torchvision_backbone_is_read_by_both(tmp_path):
    torch.manual_seed(0)
    model = pixpro.PixPro("resnet18", hidden_dim=8, dim=4)
    torch.save({"model": model.state_dict(), "config": {"loss": "pixpro"}}, tmp_path / "last.pth.tar")
    out = export(tmp_path / "last.pth.tar", tmp_path / "model", "folder")
    assert same(maps(load_backbone(out)), encoder_maps(model))
    theirs = maps(timm.create_model(f"local-dir:{out}", pretrained=True))
    for found, expected in zip(theirs, encoder_maps(model), strict=True):
        torch.testing.assert_close(found, expected)
