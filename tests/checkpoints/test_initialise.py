"""Weights to start training from: what is used, left and missing is said, and training goes on from them."""

import re
from urllib.error import URLError

import pytest
import torch
import torchvision

import pixpro
import train
from pixpro.checkpoints.initialise import initialise
from pixpro.data.views import View
from pixpro.errors import UserError
from tests.helpers import foreign_models as foreign
from tests.helpers.pictures import texture
from tests.helpers.small_models import saved, small_model


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "pixpro.pth"
    return saved(path, lambda: foreign.Official(instance=True), epoch=100)


def test_starting_from_an_official_checkpoint_takes_everything(official):
    path, theirs = official
    model = small_model(instance_weight=1.0)
    line = initialise(model, path)
    assert line == (
        f"init from {path} (zdaxie/PixPro, resnet18, epoch 100): used backbone, projector, instance projector, "
        "momentum backbone, momentum projector, momentum instance projector, instance head, propagation; "
        "left in the file: nothing; missing: nothing"
    )
    state = model.state_dict()
    for ours, original in {
        "encoder.bn1.running_var": theirs.encoder.bn1.running_var,
        "momentum_encoder.projector.linear2.weight": theirs.projector_k.linear2.weight,
        "instance.predictor.bn1.weight": theirs.predictor.bn1.weight,
        "propagation.transform.bias": theirs.value_transform.bias,
    }.items():
        assert torch.equal(state[ours], original)


def test_what_does_not_fit_or_has_no_place_is_said(official):
    model = pixpro.PixContrast("resnet18", hidden_dim=foreign.HIDDEN + 1, dim=foreign.DIM)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    line = initialise(model, official[0])
    assert "used backbone, momentum backbone; " in line
    left = re.search("left in the file: (.*); missing", line)[1].split(", ")
    online = ["projector", "instance projector"]
    assert set(left) == {*online, *(f"momentum {part}" for part in online), "propagation", "instance head"}
    assert line.endswith("missing: projector (fresh)")
    # A part that does not fit is left whole: not even its tensors of the same shape are taken.
    assert torch.equal(model.state_dict()["encoder.projector.linear2.bias"], before["encoder.projector.linear2.bias"])


def test_the_momentum_encoder_starts_as_the_online_one_where_the_file_has_none(tmp_path):
    path, theirs = saved(tmp_path / "simsiam.pth", foreign.SimSiam, "state_dict", epoch=100, arch="resnet18")
    model = small_model()
    line = initialise(model, path)
    assert "(SimSiam, resnet18, epoch 100): used backbone; left in the file: encoder.fc, predictor" in line
    assert "momentum backbone (copied from the online one)" in line
    state = model.state_dict()
    assert torch.equal(state["encoder.layer1.0.conv1.weight"], theirs.encoder.layer1[0].conv1.weight)
    for name, tensor in state.items():
        if name.startswith("encoder."):
            assert torch.equal(tensor, state[f"momentum_{name}"]), name


def test_a_momentum_encoder_of_its_own_is_kept(tmp_path):
    path, theirs = saved(tmp_path / "moco.pth", foreign.MoCo, "state_dict")
    model = small_model()
    assert "left in the file: queue, queue_ptr, encoder_q.fc, encoder_k.fc; " in initialise(model, path)
    state = model.state_dict()
    assert torch.equal(state["momentum_encoder.conv1.weight"], theirs.encoder_k.conv1.weight)
    assert not torch.equal(state["momentum_encoder.conv1.weight"], state["encoder.conv1.weight"])


def test_a_pyramid_starts_with_its_trunk_and_comes_back_whole(official, tmp_path):
    def pyramid():
        return small_model(neck="fpn", levels=(4, 5))

    model = pyramid()
    line = initialise(model, official[0])
    assert "used backbone" in line and "neck (fresh)" in line
    torch.save({"model": model.state_dict()}, tmp_path / "pyramid.pth")
    again = pyramid()
    with torch.no_grad():
        again.encoder.neck.inner_blocks[3][0].weight.zero_()
    assert initialise(again, str(tmp_path / "pyramid.pth")).endswith("left in the file: nothing; missing: nothing")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    exported = pixpro.load_backbone(tmp_path / "pyramid.pth").state_dict()
    assert torch.equal(exported["layer4.1.conv2.weight"], official[1].encoder.layer4[1].conv2.weight)


@pytest.mark.parametrize(
    "make", [foreign.Official, foreign.Seed, foreign.Conradry], ids=["official", "seed", "conradry"]
)
def test_training_goes_on_from_foreign_weights(tmp_path, make):
    path, _ = saved(tmp_path / "foreign.pth", make, "state_dict")
    model = small_model()
    assert "missing: nothing" in initialise(model, path)
    start = model.encoder.conv1.weight.clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    loss = model(View(torch.randn(2, 3, 32, 32), boxes), View(torch.randn(2, 3, 32, 32), boxes))
    loss.backward()
    optimizer.step()
    model.update_momentum(0.9)
    assert torch.isfinite(loss) and not torch.equal(model.encoder.conv1.weight, start)


def test_starting_from_another_network_is_refused(official):
    with torch.device("meta"):
        model = pixpro.PixPro("resnet50", hidden_dim=8, dim=4)
    with pytest.raises(UserError, match="holds a resnet18, the model is a resnet50"):
        initialise(model.to_empty(device="cpu"), official[0])


@pytest.fixture
def hub(tmp_path):
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


def test_imagenet_weights_are_taken_from_torchvisions_cache(hub):
    hub.mkdir()
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    supervised = torchvision.models.resnet18(weights=None)
    torch.save(supervised.state_dict(), hub / weights.url.rsplit("/", 1)[1])
    model = small_model()
    assert "init from torchvision's supervised ImageNet weights: used backbone" in initialise(model, "imagenet")
    assert torch.equal(model.momentum_encoder.conv1.weight, supervised.conv1.weight)


def test_imagenet_weights_without_network_are_one_clear_line(hub, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(UserError, match="could not be fetched .*resnet18-f37072fd.pth.*--init PATH") as refusal:
        initialise(small_model(), "imagenet")
    assert str(refusal.value).isprintable()


def test_train_starts_from_the_weights_it_is_given(official, tmp_path, capsys):
    for index in range(4):
        texture(40, 40, seed=index).save(tmp_path / f"{index}.png")
    small = "--arch resnet18 --image_size 32 --batch_size 4 --epochs 1 --warmup_epochs 0 --lr_base 0 --workers 0"
    heads = f"--hidden_dim {foreign.HIDDEN} --dim {foreign.DIM} --output_dir {tmp_path / 'run'}"
    arguments = f"--data {tmp_path} {small} {heads} --init {official[0]}".split()
    assert train.main(arguments) == 0
    assert f"init from {official[0]} (zdaxie/PixPro, resnet18, epoch 100): used backbone" in capsys.readouterr().out
    # At a peak learning rate of zero (the schedule ends at 1e-6) the weights hardly leave where they started.
    trained = pixpro.load_backbone(tmp_path / "run" / "last.pth.tar").state_dict()
    assert torch.allclose(trained["layer4.1.conv2.weight"], official[1].encoder.layer4[1].conv2.weight, atol=1e-5)
    assert train.main([*arguments, "--init", str(tmp_path / "none.pth")]) == 2
    assert "none.pth: no such file" in capsys.readouterr().err
