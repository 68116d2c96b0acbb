"""The two methods as modules: targets, momentum, edges, and the parts they are put together from."""

import pytest
import torch
import torch.nn.functional as F

from pixpro import PixContrast, PixPro
from pixpro.data.views import View
from pixpro.method.geometry import inside, positive_pairs
from pixpro.method.losses import consistency_loss, contrast_loss

METHODS = {"pixpro": PixPro, "pixcontrast": PixContrast}
OVERLAPPING = torch.tensor([[0.0, 0.0, 0.9, 0.9], [0.8, 0.2, 0.1, 1.0]]), torch.tensor([[0.1, 0.1, 1.0, 1.0]] * 2)
APART = torch.tensor([[0.0, 0.0, 0.3, 0.3]] * 2), torch.tensor([[0.6, 0.6, 1.0, 1.0]] * 2)


def build(method: str, **options):
    torch.manual_seed(0)
    return METHODS[method]("resnet18", hidden_dim=16, dim=8, **options)


def views(boxes=OVERLAPPING, size: int = 64) -> tuple[View, View]:
    generator = torch.Generator().manual_seed(1)
    return tuple(View(torch.randn(2, 3, size, size, generator=generator), box) for box in boxes)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_both_directions_with_momentum_targets(method):
    model = build(method).double()
    view1, view2 = (View(view.pixels.double(), view.box) for view in views())
    loss = model(view1, view2)
    expected = 0.0
    for ours, other in ((view1, view2), (view2, view1)):
        online = model.encoder(ours.pixels).maps[0]
        target = F.normalize(model.momentum_encoder(other.pixels).maps[0], dim=1)
        positives = positive_pairs(ours.box, other.box, 2, 0.7)
        if method == "pixpro":
            expected += consistency_loss(F.normalize(model.propagation(online), dim=1), target, positives)
        else:
            overlap = inside(ours.box, other.box, 2)
            expected += contrast_loss(F.normalize(online, dim=1), target, positives, overlap, 0.3)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert loss.ndim == 0 and loss.item() != 0


@pytest.mark.parametrize("method", METHODS)
def test_perturbing_the_momentum_encoder_changes_the_loss(method):
    model = build(method)
    before = model(*views()).item()
    with torch.no_grad():
        model.momentum_encoder.projector.linear2.weight.add_(torch.randn(8, 16, 1, 1))
    assert abs(model(*views()).item() - before) > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_targets_carry_no_gradient_and_everything_online_does(method):
    model = build(method, instance_weight=1.0)
    model(*views()).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("momentum_encoder."):
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad is not None, name


@pytest.mark.parametrize("method", METHODS)
def test_crops_that_do_not_overlap_give_zero_with_a_graph(method):
    model = build(method)
    loss = model(*views(APART))
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.encoder.parameters())


def test_momentum_starts_equal_one_freezes_zero_copies_and_between_mixes():
    model = build("pixpro")
    pairs = list(zip(model.momentum_encoder.parameters(), model.encoder.parameters(), strict=True))
    assert all(torch.equal(copy, online) and copy is not online for copy, online in pairs)
    old = [copy.clone() for copy, _ in pairs]
    with torch.no_grad():
        for _, online in pairs:
            online.add_(1.0)
    model.update_momentum(1.0)
    assert all(torch.equal(copy, start) for (copy, _), start in zip(pairs, old, strict=True))
    model.update_momentum(0.75)
    for (copy, online), start in zip(pairs, old, strict=True):
        torch.testing.assert_close(copy, 0.75 * start + 0.25 * online)
    model.update_momentum(0.0)
    assert all(torch.equal(copy, online) for copy, online in pairs)


def test_the_momentum_update_leaves_batchnorm_statistics_alone():
    model = build("pixpro")
    model(*views())
    before = {name: buffer.clone() for name, buffer in model.momentum_encoder.named_buffers()}
    assert before["bn1.num_batches_tracked"] == 2, "the two views pass separately, in train mode"
    model.update_momentum(0.0)
    for name, buffer in model.momentum_encoder.named_buffers():
        assert torch.equal(buffer, before[name])


@pytest.mark.parametrize("size", [32, 96, 224])
def test_maps_of_any_size_work_instance_branch_included(size):
    assert build("pixpro", instance_weight=1.0)(*views(size=size)).isfinite()


@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_the_propagation_layers_are_trainable_parameters(num_layers):
    transform = build("pixpro", num_layers=num_layers).propagation.transform
    assert sum(p.numel() for p in transform.parameters()) == [0, 8 * 8 + 8, 2 * (8 * 8 + 8) + 16][num_layers]


def test_nothing_but_the_three_known_layer_counts_is_taken():
    with pytest.raises(ValueError, match="0, 1 or 2"):
        build("pixpro", num_layers=3)


def test_an_unknown_arch_is_named():
    with pytest.raises(ValueError, match="vgg"):
        PixPro("vgg")


@pytest.mark.parametrize(("arch", "channels"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_heads_are_sized_from_the_backbone(arch, channels):
    assert PixPro(arch, hidden_dim=16, dim=8).encoder.projector.linear1.in_channels == channels


def test_trunk_names_are_torchvisions_and_residual_blocks_start_as_identities():
    import torchvision

    model = PixPro("resnet50", hidden_dim=16, dim=8)
    names = {n for n in model.encoder.state_dict() if not n.startswith("projector.")}
    assert names == {n for n in torchvision.models.resnet50().state_dict() if not n.startswith("fc.")}
    assert not model.encoder.layer3[2].bn3.weight.any()


def test_half_precision_inputs_are_compared_in_float32():
    model = build("pixpro")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(*views())
    assert loss.dtype == torch.float32
