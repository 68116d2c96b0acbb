"""Dense features of any checkpoint are those of its model, and their colours and heat maps show what is in them."""

import numpy as np
import pytest
import torch
import torchvision

from pixpro import PixContrast, PixPro
from pixpro.errors import UserError
from pixpro.visualize.dense_features import load_dense_features
from pixpro.visualize.feature_panels import (
    component_colours,
    cosines,
    shown_range,
    similarity_panels,
    whole_image,
)
from pixpro.visualize.pair import make_pair
from tests.helpers import pictures


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    return pictures.scene_photo(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    models = {
        "pixpro": PixPro("resnet18", hidden_dim=16, dim=8, sharpness=3.0),
        "two_layers": PixPro("resnet18", hidden_dim=16, dim=8, num_layers=2),
        "no_layers": PixPro("resnet18", hidden_dim=16, dim=8, num_layers=0),
        "pixcontrast": PixContrast("resnet18", hidden_dim=16, dim=8),
    }
    for name, model in models.items():
        model.encoder.bn1.running_mean += 0.3  # so that evaluation mode differs from training mode
        method = "pixcontrast" if name == "pixcontrast" else "pixpro"
        config = {"loss": method, "sharpness": 3.0 if name == "pixpro" else 2.0}
        torch.save({"model": model.state_dict(), "epoch": 7, "config": config}, folder / f"{name}.pth")
    trunk = torchvision.models.resnet18()
    torch.save(trunk.state_dict(), folder / "torchvision.pth")
    return folder, models | {"torchvision": trunk}


STAGE = {"pixcontrast": "projection", "torchvision": "trunk"}


@pytest.mark.parametrize("name", ["pixpro", "two_layers", "no_layers", "pixcontrast", "torchvision"])
def test_features_of_a_checkpoint_are_those_of_the_model(checkpoints, name):
    folder, models = checkpoints
    network, model = load_dense_features(folder / f"{name}.pth"), models[name].eval()
    images = torch.randn(2, 3, 64, 96)
    stages = network.stages(images)
    with torch.no_grad():
        if name == "torchvision":
            expected = {"trunk": torch.nn.Sequential(*list(model.children())[:-2])(images)}
        else:
            expected = {"trunk": model.encoder.features(images)["c5"], "projection": model.encoder(images).maps[0]}
            if name != "pixcontrast":
                expected["propagated"] = model.propagation(expected["projection"])
    assert list(stages) == list(expected)
    for stage, features in expected.items():
        torch.testing.assert_close(stages[stage], features)
    assert "resnet18" in network.label and ("epoch 7" in network.label) == (name != "torchvision")


def test_heads_that_do_not_fit_are_one_clear_error(checkpoints, tmp_path):
    contents = torch.load(checkpoints[0] / "pixpro.pth")
    contents["model"]["propagation.transform.weight"] = torch.zeros(8, 5, 1, 1)
    torch.save(contents, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="do not fit together"):
        load_dense_features(tmp_path / "odd.pth")


def test_cosines_equal_loops():
    first, second = torch.randn(1, 5, 2, 3), torch.randn(1, 5, 2, 3)
    values = cosines(first, second)
    for i in range(6):
        for j in range(6):
            a, b = first[0, :, i // 3, i % 3].numpy(), second[0, :, j // 3, j % 3].numpy()
            assert values[i, j] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-5)


def test_heat_maps_show_what_occurs_but_do_not_blow_up_noise():
    assert shown_range(np.array([-0.25, 0.5, 1.0])) == (-0.25, 1.0)
    assert shown_range(np.array([0.999, 1.0])) == pytest.approx((0.9, 1.0))


def test_like_cells_get_like_colours_and_features_without_content_grey():
    kinds = torch.randn(4, 16)
    first, second = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 2, 1, 0])
    maps = [kinds[first].T.reshape(1, 16, 2, 3), 5 * kinds[second].T.reshape(1, 16, 2, 2)]
    colours = component_colours(maps)
    assert colours[0].shape == (2, 3, 3) and colours[1].shape == (2, 2, 3)
    flat = [colour.reshape(-1, 3).astype(int) for colour in colours]
    for i, kind in enumerate(first):
        for j, other in enumerate(second):
            far = np.abs(flat[0][i] - flat[1][j]).max()
            assert far <= 1 if kind == other else far > 40
    (grey,) = component_colours([torch.ones(1, 16, 3, 3)])
    assert np.ptp(grey) == 0
    (few,) = component_colours([torch.randn(1, 2, 3, 3)])
    assert few.shape == (3, 3, 3)


@pytest.mark.parametrize("shape", [(100, 2000), (2000, 100), (3, 3), (375, 500)])
def test_whole_images_are_fed_in_sizes_that_the_network_takes(shape):
    pixels = whole_image(np.zeros((*shape, 3), np.uint8))
    assert all(side % 32 == 0 and 64 <= side <= 1024 for side in pixels.shape[2:])


@pytest.mark.parametrize("name", ["pixcontrast", "torchvision"])
def test_checkpoints_without_propagation_are_drawn_too(photo, checkpoints, name):
    panels = similarity_panels(make_pair(photo, image_size=64), load_dense_features(checkpoints[0] / f"{name}.pth"), 0)
    assert [panel.title for panel in panels] == [f"View 1, {STAGE[name]}", "View 2, seen from the cell"]
