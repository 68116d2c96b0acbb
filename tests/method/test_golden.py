"""The method equals the official code: records of propagation, loss and whole models, in float64."""

import numpy as np
import pytest
import torch

from pixpro.data.views import View
from pixpro.method.geometry import positive_pairs
from pixpro.method.losses import consistency_loss
from pixpro.method.model import PixPro
from pixpro.method.ppm import PixelPropagation
from pixpro.training import schedules
from tests.golden import recipe
from tests.helpers.golden_records import assert_row, fill, load

PROPAGATION, PROPAGATION_ARRAYS = load("case1_featprop")
LOSS, LOSS_ARRAYS = load("case2_regression_loss")
MODEL, MODEL_ARRAYS = load("case3_full_model")
LIMIT = 1e-11


@pytest.mark.parametrize("case", PROPAGATION["cases"])
def test_propagation_and_its_gradients_equal_the_official_ones(case):
    record = PROPAGATION["cases"][case]
    config = record["config"]
    module = PixelPropagation(256, config["p"], config["transform_layer"], config["clamp"]).double()
    for name, tensor in module.transform.state_dict().items():
        tensor.copy_(torch.from_numpy(recipe.weight(f"value_transform.{name}", tuple(tensor.shape))))
    cells = torch.from_numpy(recipe.features(config["features"])).double().requires_grad_()

    out = module(cells)
    (out * torch.from_numpy(recipe.normal("featprop/R", (2, 256, 7, 7)))).sum().backward()

    assert_row("out", out, record["out"])
    assert_row("dfeat", cells.grad, record["dfeat"])
    peak = np.abs(PROPAGATION_ARRAYS[f"{case}/out_sub"]).max()
    np.testing.assert_allclose(out.detach()[:, ::64], PROPAGATION_ARRAYS[f"{case}/out_sub"], rtol=0, atol=LIMIT * peak)
    for name, row in record["value_transform_grad"].items():
        assert_row(name, module.transform.get_parameter(name.removeprefix("value_transform.")).grad, row)
    for name, row in record["value_transform_bn_after"].items():
        assert_row(name, module.transform.get_buffer(name.removeprefix("value_transform.")), row)


@pytest.mark.parametrize("case", LOSS["cases"])
def test_positives_and_the_consistency_loss_equal_the_official_ones(case):
    record = LOSS["cases"][case]
    config = record["config"]
    shape = tuple(config["shape"])
    suffix = "57" if shape[2] == 5 else ""
    prediction, target = (
        torch.from_numpy(recipe.unit(recipe.normal(f"reg/{name}{suffix}", shape))).double().requires_grad_()
        for name in "qk"
    )
    boxes, target_boxes = (torch.tensor(config[name]) for name in ("coord_q", "coord_k"))

    positives = positive_pairs(boxes, target_boxes, shape[2:], config["pos_ratio"])
    loss = consistency_loss(prediction, target, positives)
    loss.backward()

    expected = np.unpackbits(LOSS_ARRAYS[f"{case}/mask_packed"])[: positives.numel()].reshape(positives.shape)
    np.testing.assert_array_equal(positives.numpy(), expected.astype(bool))
    assert positives.sum(dim=(1, 2)).tolist() == record["positives"]
    assert abs(loss.item() - record["loss"]["float64"]) < LIMIT
    assert_row("dq", prediction.grad, record["dq"])
    assert_row("dk", target.grad, record["dk"])
    for sample, value in enumerate(record["loss_per_sample"]["float64"]):
        one = slice(sample, sample + 1)
        assert abs(consistency_loss(prediction[one], target[one], positives[one]).item() - value) < LIMIT


@pytest.mark.parametrize("case", MODEL["cases"])
def test_a_whole_step_equals_the_official_one(case):
    record = MODEL["cases"][case]
    config, args = record["config"], record["config"]["args"]
    model = PixPro(
        "resnet50",
        num_layers=args["pixpro_transform_layer"],
        sharpness=args["pixpro_p"],
        similarity_floor=args["pixpro_clamp_value"],
        threshold=args["pixpro_pos_ratio"],
        instance_weight=args["pixpro_ins_loss_weight"],
    )
    names = fill(model, [*record["grad"], *record["ema"], *record["bn_buffers"], *counters(record["bn_buffers"])])
    seen = watch(model)
    images = [
        torch.from_numpy(recipe.normal(f"im_{v}", (config["n"], 3, config["size"], config["size"]))) for v in (1, 2)
    ]
    boxes = [torch.from_numpy(coords) for coords in recipe.coords(config["n"], config["coord_shift"])]

    # Golden networks start unequal, and the official step moves the key networks before it uses them.
    model.update_momentum(schedules.cosine_momentum(record["k"], record["K"]))
    loss = model(View(images[0].double(), boxes[0]), View(images[1].double(), boxes[1]))
    loss.backward()

    assert abs(loss.item() - record["float64"]["loss"]) < LIMIT
    official = {name: ours for ours, name in names.items()}
    for name, row in record["grad"].items():
        assert_row(name, model.get_parameter(official[name]).grad, row)
    for name, row in record["ema"].items():
        parameter = model.get_parameter(official[name])
        assert parameter.grad is None and not parameter.requires_grad
        assert_row(name, parameter, row)
    for name, row in record["bn_buffers"].items():
        assert_row(name, model.get_buffer(official[name]), row)
    for name, row in record["intermediate"].items():
        assert_row(name, seen[name], row)


def counters(buffers: dict) -> list[str]:
    """Names of BatchNorm's `num_batches_tracked`, which the records leave out."""
    means = [name for name in buffers if name.endswith("running_mean")]
    return [name.replace("running_mean", "num_batches_tracked") for name in means]


def watch(model: PixPro) -> dict[str, torch.Tensor]:
    """What flows through a model's modules, under the records' names, filled by the next forward."""
    seen: dict[str, torch.Tensor] = {}

    def keep(module, name, change=lambda tensor: tensor):
        def hook(_module, _inputs, output):
            view = 2 if f"{name}_1" in seen else 1
            seen[f"{name}_{view}"] = change(output)

        module.register_forward_hook(hook)

    unit = torch.nn.functional.normalize
    keep(model.encoder.layer4, "c5")
    keep(model.encoder.projector, "proj")
    keep(model.propagation, "pred", lambda cells: unit(cells, dim=1))
    keep(model.momentum_encoder.projector, "key", lambda cells: unit(cells, dim=1))
    if model.instance is not None:
        keep(model.instance.predictor, "pred_ins", lambda cells: unit(cells.mean(dim=(2, 3)), dim=1))
        keep(model.momentum_encoder.instance_projector, "key_ins", lambda cells: unit(cells.mean(dim=(2, 3)), dim=1))
    return seen


@pytest.mark.parametrize("table", MODEL["momentum_tables"], ids=lambda table: f"K{table['K']}")
def test_momentum_coefficients_equal_the_official_ones(table):
    args = table["args"]
    total = schedules.momentum_steps(args["num_instances"], args["batch_size"], args["epochs"])
    assert total == table["K"]
    for step, coefficient in table["k_and_coefficient"]:
        ours = schedules.cosine_momentum(step, total, args["pixpro_momentum"])
        assert ours == pytest.approx(coefficient, rel=1e-14)
