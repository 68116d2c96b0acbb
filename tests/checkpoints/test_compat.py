"""Checkpoints of other projects compute the same under our names, and nothing in them vanishes unmentioned."""

import argparse
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn

import pixpro
from pixpro.checkpoints.convert import convert, read_checkpoint, to_pixpro
from pixpro.errors import UserError
from tests.helpers import foreign_models as foreign
from tests.helpers.foreign_models import randomised, wrapped

IMAGES = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CELLS = torch.randn(2, foreign.DIM, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

PIXPROS = {"official": foreign.Official, "seed": foreign.Seed, "conradry": foreign.Conradry}
TRUNKS = {
    "moco": foreign.MoCo,
    "mocov3": foreign.MoCoV3,
    "simsiam": foreign.SimSiam,
    "densecl": foreign.DenseCL,
    "torchvision": foreign.Plain,
    "torchvision without fc": lambda: foreign.Plain(fc=False),
    "mmcv": lambda: foreign.Plain(fc=False, under="backbone"),
    "official, trunk only": lambda: foreign.Plain(fc=False, under="encoder"),
}


def our_model(**options) -> nn.Module:
    """A PixPro in float64 whose tensors hold nothing yet."""
    with torch.device("meta"):
        model = pixpro.PixPro("resnet18", hidden_dim=foreign.HIDDEN, dim=foreign.DIM, **options)
    return model.double().eval().to_empty(device="cpu")


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("project", PIXPROS)
def test_a_converted_pixpro_loads_strictly_and_computes_the_same_cells(project, layers):
    theirs = randomised(lambda: PIXPROS[project](layers))
    ours = our_model(num_layers=layers)
    ours.load_state_dict(to_pixpro(wrapped(theirs.state_dict())))
    with torch.no_grad():
        torch.testing.assert_close(ours.encoder(IMAGES).maps[0], theirs.maps(IMAGES), rtol=0, atol=1e-12)
        torch.testing.assert_close(
            ours.momentum_encoder(IMAGES).maps[0], theirs.momentum_maps(IMAGES), rtol=0, atol=1e-12
        )
        torch.testing.assert_close(ours.propagation.transform(CELLS), theirs.transform(CELLS), rtol=0, atol=1e-12)


def test_the_official_instance_heads_find_their_places():
    theirs = randomised(lambda: foreign.Official(instance=True))
    ours = our_model(instance_weight=1.0)
    ours.load_state_dict(to_pixpro(theirs.state_dict()))
    with torch.no_grad():
        online, momentum = ours.encoder(IMAGES).instance, ours.momentum_encoder(IMAGES).instance
        torch.testing.assert_close(online, theirs.projector_instance(theirs.encoder(IMAGES)))
        torch.testing.assert_close(momentum, theirs.projector_instance_k(theirs.encoder_k(IMAGES)))
        torch.testing.assert_close(ours.instance.predictor(CELLS), theirs.predictor(CELLS))


@pytest.mark.parametrize("project", TRUNKS)
def test_a_converted_trunk_computes_the_same_map(project):
    theirs = randomised(TRUNKS[project])
    ours = our_model()
    assert not ours.load_state_dict(to_pixpro(theirs.state_dict()), strict=False).unexpected_keys
    with torch.no_grad():
        assert torch.equal(ours.encoder.features(IMAGES)["c5"], theirs.trunk(IMAGES))
        if hasattr(theirs, "momentum_trunk"):
            assert torch.equal(ours.momentum_encoder.features(IMAGES)["c5"], theirs.momentum_trunk(IMAGES))


@pytest.mark.parametrize("make", [lambda: foreign.Conradry(2), *TRUNKS.values()])
def test_every_tensor_is_either_used_or_named_as_left(make):
    with torch.device("meta"):
        original = make().state_dict()
    account = convert(original)
    used = {id(tensor) for tensor in account.state_dict.values()}
    for name, tensor in original.items():
        assert (id(tensor) in used) != (name in account.left), name
    assert len(account.state_dict) == len(original) - len(account.left) + len(account.added)


def test_heads_of_other_kinds_are_left():
    with torch.device("meta"):
        assert "predictor.0.weight" in convert(foreign.SimSiam().state_dict()).left
        assert "encoder_q.1.mlp2.0.weight" in convert(foreign.DenseCL().state_dict()).left
        assert {"fc.weight", "fc.bias"} == set(convert(foreign.Plain().state_dict()).left)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_wrappers_of_parallel_and_compiled_models_are_taken_off(prefix):
    tensors = {"encoder_q.conv1.weight": torch.zeros(1), "encoder_q.fc.weight": torch.zeros(1)}
    account = convert(wrapped(tensors, prefix))
    assert (list(account.state_dict), account.left) == (["encoder.conv1.weight"], ("encoder_q.fc.weight",))


def test_converting_twice_changes_nothing():
    with torch.device("meta"):
        once = to_pixpro(wrapped(foreign.Official(2, instance=True).state_dict()))
    twice = to_pixpro(once)
    assert list(twice) == list(once)
    assert all(twice[name] is once[name] for name in once)


@pytest.mark.parametrize("method", [pixpro.PixPro, pixpro.PixContrast])
def test_our_own_names_stay_as_they_are(method):
    with torch.device("meta"):
        own = method("resnet18", hidden_dim=8, dim=4, instance_weight=1.0).state_dict()
    account = convert(wrapped(own))
    assert list(account.state_dict) == list(own)
    assert account.left == account.added == ()


def test_any_part_of_an_official_state_dict_gets_the_names_of_the_whole():
    with torch.device("meta"):
        whole = foreign.Official(2, instance=True).state_dict()
    ours = dict(zip(whole, to_pixpro(whole), strict=True))
    for name, tensor in whole.items():
        assert list(to_pixpro({f"module.{name}": tensor})) == [ours[name]]
        assert list(to_pixpro({ours[name]: tensor})) == [ours[name]]


def test_dtypes_and_values_are_untouched():
    original = randomised(foreign.Official).state_dict()
    converted = to_pixpro(original)
    assert converted["encoder.layer4.1.conv2.weight"] is original["encoder.layer4.1.conv2.weight"]
    assert converted["encoder.projector.linear1.weight"].dtype == torch.float64
    assert converted["encoder.bn1.num_batches_tracked"].dtype == torch.int64


def test_a_state_dict_of_something_else_is_refused():
    with pytest.raises(UserError, match="no known names"):
        to_pixpro(nn.Linear(2, 2).state_dict())


def test_two_tensors_of_one_name_are_refused():
    tensor = torch.zeros(1)
    with pytest.raises(UserError, match=r"two tensors are both conv1\.weight"):
        to_pixpro({"conv1.weight": tensor, "module.conv1.weight": tensor})


@pytest.mark.parametrize("zipped", [True, False])
def test_an_official_checkpoint_is_read_with_its_settings(tmp_path, zipped):
    state = wrapped(randomised(lambda: foreign.Official(instance=True)).float().state_dict())
    options = argparse.Namespace(arch="resnet18", pixpro_p=2.0, crop=0.08)
    contents = {"opt": options, "model": state, "optimizer": {"state": {}}, "scheduler": {}, "epoch": 100}
    torch.save(contents, tmp_path / "ckpt_epoch_100.pth", _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(tmp_path / "ckpt_epoch_100.pth")
    assert (checkpoint.arch, checkpoint.method, checkpoint.epoch) == ("resnet18", "pixpro", 100)
    assert checkpoint.writer == "zdaxie/PixPro"
    assert checkpoint.config["pixpro_p"] == 2.0
    assert torch.equal(checkpoint.trunk()["conv1.weight"], state["module.encoder.conv1.weight"])


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_seed_checkpoint_is_read_with_or_without_its_wrapper(tmp_path, prefix):
    state = wrapped(randomised(foreign.Seed).float().state_dict(), prefix)
    torch.save({"epoch": 5, "state_dict": state, "optimizer": {}}, tmp_path / "4.pth.tar")
    checkpoint = read_checkpoint(tmp_path / "4.pth.tar")
    assert (checkpoint.arch, checkpoint.writer, checkpoint.epoch) == (
        "resnet18",
        "Sungman-Cho/Propagate-Yourself-Pytorch",
        5,
    )
    assert checkpoint.left == ()


def test_our_own_checkpoint_says_method_and_epoch(tmp_path):
    model = pixpro.PixContrast("resnet18", hidden_dim=8, dim=4)
    config = {"loss": "pixcontrast", "epochs": 100, "data": ["images"]}
    torch.save({"model": model.state_dict(), "config": config, "epoch": 7, "step": 70}, tmp_path / "last.pth.tar")
    checkpoint = read_checkpoint(tmp_path / "last.pth.tar")
    assert (checkpoint.method, checkpoint.epoch, checkpoint.config) == ("pixcontrast", 7, config)


@pytest.mark.parametrize("contents", [{}, [], {"model": {}}, {"a": 1}, {"state_dict": [1]}, torch.zeros(2), "text", 3])
def test_a_file_without_weights_is_refused_in_one_line(tmp_path, contents):
    torch.save(contents, tmp_path / "x.pth")
    with pytest.raises(UserError) as refusal:
        read_checkpoint(tmp_path / "x.pth")
    assert "x.pth: " in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_head_without_its_trunk_is_refused(tmp_path):
    head = {f"projector.{name}": tensor for name, tensor in foreign.MLP2d(512, 8, 4).state_dict().items()}
    torch.save({"model": head}, tmp_path / "head.pth")
    with pytest.raises(UserError, match="no backbone in it"):
        read_checkpoint(tmp_path / "head.pth")


def test_weights_of_torchvision_itself_are_read_bare(tmp_path):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34-333f7ec4.pth")
    checkpoint = read_checkpoint(tmp_path / "resnet34-333f7ec4.pth")
    assert (checkpoint.arch, checkpoint.left) == ("resnet34", ("fc.weight", "fc.bias"))
    assert (checkpoint.method, checkpoint.epoch) == ("unknown", None)


class Posing:
    """Pickles as an OrderedDict whose methods are hidden behind attributes of the same names."""

    def __init__(self, name: str, contents: dict) -> None:
        self.call = OrderedDict, (), {name: 5}, None, iter(contents.items())

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("method", ["get", "items", "values", "keys"])
def test_contents_that_pose_as_others_are_refused_in_one_line(tmp_path, method):
    weights = {"conv1.weight": torch.zeros(1)}
    torch.save(Posing(method, {"model": weights}), tmp_path / "outside.pth")
    torch.save({"model": Posing(method, weights)}, tmp_path / "inside.pth")
    for name in ("outside", "inside"):
        with pytest.raises(UserError, match=rf"{name}\.pth: (malformed|damaged|not a whole)[^\n]*$"):
            read_checkpoint(tmp_path / f"{name}.pth")
