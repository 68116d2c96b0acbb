"""Instance branch: both forms equal loops from the definition, and processes together equal one."""

import math

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from pixpro.data.views import View
from pixpro.method.losses import InstanceContrast, InstanceRegression
from pixpro.method.model import PixContrast, PixPro
from pixpro.training.distributed import join, launch, leave, mean_numbers
from pixpro.training.sync_batchnorm import BatchNorm

SMALL = {"hidden_dim": 16, "dim": 8}


def random_views(images: int, seed: int, side: int = 64) -> tuple[View, View]:
    """Two float64 views of each image whose boxes overlap."""
    generator = torch.Generator().manual_seed(seed)
    views = []
    for _ in range(2):
        corners = torch.rand(images, 2, generator=generator, dtype=torch.float64) * 0.3
        box = torch.cat((corners, corners + 0.6), dim=1)
        views.append(View(torch.randn(images, 3, side, side, generator=generator, dtype=torch.float64), box))
    return views[0], views[1]


def slow_vector(features: torch.Tensor) -> list[float]:
    """The pooled, normalised vector of one (C, H, W) map, one number at a time."""
    means = [math.fsum(channel.flatten().tolist()) / channel.numel() for channel in features]
    length = math.sqrt(math.fsum(mean * mean for mean in means))
    return [mean / length for mean in means]


def slow_cosine(features1: torch.Tensor, features2: torch.Tensor) -> float:
    return math.fsum(a * b for a, b in zip(slow_vector(features1), slow_vector(features2), strict=True))


def slow_contrast(online: torch.Tensor, target: torch.Tensor, temperature: float) -> float:
    total = 0.0
    for image, query in enumerate(online):
        masses = [math.exp(slow_cosine(query, key) / temperature) for key in target]
        total += -math.log(masses[image] / math.fsum(masses))
    return total / len(online)


def slow_regression(online: torch.Tensor, target: torch.Tensor, predictor: torch.nn.Module) -> float:
    """Predict each cell with two matrix products and BatchNorm over all cells of the batch, then pool."""
    images, _, height, width = online.shape
    cells = online.permute(0, 2, 3, 1).reshape(-1, online.shape[1])
    hidden = cells @ predictor.linear1.weight.flatten(1).T + predictor.linear1.bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + predictor.bn1.eps).sqrt()
    hidden = (hidden * predictor.bn1.weight + predictor.bn1.bias).clamp(min=0)
    predicted = hidden @ predictor.linear2.weight.flatten(1).T + predictor.linear2.bias
    predicted = predicted.view(images, height, width, -1).permute(0, 3, 1, 2).detach()
    return sum(-2 * slow_cosine(one, other) for one, other in zip(predicted, target, strict=True)) / images


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (3, 5)])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_contrast_equals_loops_over_queries_and_keys(size, temperature):
    online, target = torch.randn(2, 5, 6, *size, dtype=torch.float64).unbind()
    loss = InstanceContrast(temperature)(online, target)
    assert loss.item() == pytest.approx(slow_contrast(online, target, temperature), abs=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (3, 5)])
def test_regression_equals_loops_over_cells(size):
    online, target = torch.randn(2, 4, 6, *size, dtype=torch.float64).unbind()
    branch = InstanceRegression(dim=6, hidden_dim=10).double()
    with torch.no_grad():
        branch.predictor.bn1.weight.uniform_(0.5, 1.5)
        branch.predictor.bn1.bias.uniform_(-0.5, 0.5)
    assert branch(online, target).item() == pytest.approx(slow_regression(online, target, branch.predictor), abs=1e-12)


def test_contrast_of_orthogonal_images_is_known():
    """Own key at cosine 1, three others at 0: -log(e^2 / (e^2 + 3)) at temperature 1/2."""
    maps = torch.eye(4)[:, :, None, None].expand(-1, -1, 2, 3)
    assert InstanceContrast(0.5)(maps, maps).item() == pytest.approx(math.log(1 + 3 * math.exp(-2)), abs=1e-6)


def test_keys_take_no_gradient():
    online, target = torch.randn(2, 3, 6, 2, 2).unbind()
    online, target = online.requires_grad_(), target.requires_grad_()
    InstanceContrast(0.2)(online, target).backward()
    assert target.grad is None
    assert online.grad.abs().sum() > 0


@pytest.mark.parametrize("method", [PixPro, PixContrast])
@pytest.mark.parametrize("form", ["regression", "contrast"])
def test_the_branch_adds_its_weighted_loss_of_both_directions(method, form):
    torch.manual_seed(0)
    model = method("resnet18", instance_weight=0.7, instance_loss=form, instance_temperature=0.3, **SMALL).double()
    with torch.no_grad():
        for parameter in model.momentum_encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    plain = method("resnet18", **SMALL).double()
    missing, unexpected = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing
    assert all("instance" in name for name in unexpected)
    view1, view2 = random_views(3, seed=1)
    online = [model.encoder(view.pixels).instance.detach() for view in (view1, view2)]
    target = [model.momentum_encoder(view.pixels).instance for view in (view1, view2)]
    if form == "contrast":
        both = sum(slow_contrast(online[i], target[1 - i], 0.3) for i in (0, 1))
    else:
        both = sum(slow_regression(online[i], target[1 - i], model.instance.predictor) for i in (0, 1))
    assert model(view1, view2).item() - plain(view1, view2).item() == pytest.approx(0.7 * both, abs=1e-9)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="simclr.*regression, contrast"):
        PixPro("resnet18", instance_weight=1.0, instance_loss="simclr", **SMALL)


METHODS = {"pixpro": PixPro, "pixcontrast": PixContrast}


def pretraining_model(method: str) -> torch.nn.Module:
    """A float64 model with all that looks across images: BatchNorm, pyramid, contrast of instances; no zero gammas."""
    torch.manual_seed(0)
    options = {"neck": "fpn", "levels": (4, 5), "instance_weight": 1.0, "instance_loss": "contrast", **SMALL}
    model = METHODS[method]("resnet18", **options).double()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter))
    return model


def work_of_one_rank(folder: str) -> None:
    """Write this rank's averaged losses and gradients for its half of a batch, and its loss of a single image."""
    process = join()
    mine = slice(3 * process.rank, 3 * process.rank + 3)
    view1, view2 = (View(view.pixels[mine], view.box[mine]) for view in random_views(6, seed=2))
    record = {}
    for method in METHODS:
        model = BatchNorm.convert(pretraining_model(method), process.world_size)
        parallel = DistributedDataParallel(model, broadcast_buffers=False)
        loss = parallel(view1, view2)
        loss.backward()
        grads = {name: parameter.grad for name, parameter in model.named_parameters()}
        mean = mean_numbers({"loss": loss.detach()}, loss.device)["loss"]
        record[method] = {"loss": torch.tensor(mean, dtype=loss.dtype), "grads": grads}
    maps = torch.eye(2)[process.rank][None, :, None, None]
    record["single"] = InstanceContrast(0.5)(maps, maps)
    torch.save(record, f"{folder}/{process.rank}.pt")
    leave()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What each of two processes wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    launch(work_of_one_rank, 2, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one_with_the_double_batch(method, two_ranks):
    model = pretraining_model(method)
    loss = model(*random_views(6, seed=2))
    loss.backward()
    for record in two_ranks:
        assert record[method]["loss"].item() == pytest.approx(loss.item(), abs=1e-10)
        for name, parameter in model.named_parameters():
            found = record[method]["grads"][name]
            if parameter.grad is None:
                assert found is None, name
            else:
                torch.testing.assert_close(found, parameter.grad, rtol=1e-7, atol=1e-9)


def test_keys_of_other_processes_count_as_negatives(two_ranks):
    """Each process has one image: alone, its loss would be exactly zero."""
    maps = torch.eye(2)[:, :, None, None]
    for record in two_ranks:
        assert record["single"].item() == pytest.approx(slow_contrast(maps, maps, 0.5), abs=1e-6)


def test_only_directions_count_not_lengths():
    online, target = torch.randn(2, 5, 6, 3, 3, dtype=torch.float64).unbind()
    loss = InstanceContrast(0.2)
    assert loss(online * 7, target * 0.1).item() == pytest.approx(loss(online, target).item(), abs=1e-12)
