"""The C4 detector is the same model as detectron2's, part by part and as a whole."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, squeezenet1_0
from torchvision.models.detection.image_list import ImageList

from downstream.detection.c4_heads import RegionPool, region_losses
from downstream.detection.c4_proposals import CellAnchors, ProposalNetwork
from downstream.detection.detector import Detector, parameter_groups
from pixpro.errors import UserError
from pixpro.method.trunks import new_backbone
from tests.helpers import c4_case

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "detector_c4.json").read_text())


def tiny_detector() -> Detector:
    torch.manual_seed(0)
    return Detector(resnet18(), 3, regions_per_image=8, test_proposals=5)


def test_anchors_lie_around_cell_corners_size_by_size_and_are_not_rounded():
    (anchors,) = CellAnchors()(ImageList(torch.zeros(1, 3, 40, 40), [(40, 40)]), [torch.zeros(1, 8, 2, 3)])
    assert anchors.shape == (2 * 3 * 15, 4)
    half = math.sqrt(2 * 32**2) / 2  # size 32, ratio 1/2: 45.25 x 22.63
    torch.testing.assert_close(anchors[0], torch.tensor([-half, -half / 2, half, half / 2]))
    torch.testing.assert_close(anchors[4], torch.tensor([-32.0, -32.0, 32.0, 32.0]))  # size 64, ratio 1
    last_cell = torch.tensor([32.0, 16.0, 32.0, 16.0])  # third column, second row
    torch.testing.assert_close(anchors[75:] - last_cell, anchors[:15])


def test_region_pool_reads_the_bin_centres_of_aligned_cells():
    ramp = torch.arange(20.0).expand(1, 1, 20, 20)
    pooled = RegionPool()({"res4": ramp}, [torch.tensor([[32.0, 16.0, 256.0, 240.0]])], [(320, 320)])
    torch.testing.assert_close(pooled[0, 0], torch.arange(2.0, 16.0).expand(14, 14))


def test_region_losses_are_the_ones_computed_by_hand():
    scores = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)], [math.log(3.0), 0.0]])
    offsets = torch.tensor([[9.0] * 8, [9.0] * 4 + [0.1, 0.2, 0.3, 0.4], [9.0] * 8])
    targets = torch.tensor([[5.0] * 4, [0.0, 0.0, 1.0, 0.0], [5.0] * 4])
    losses = region_losses(scores, offsets, torch.tensor([0, 1, 0]), targets)
    assert losses["loss_classifier"].item() == pytest.approx((math.log(2) + 2 * math.log(4 / 3)) / 3)
    assert losses["loss_box_reg"].item() == pytest.approx((0.1 + 0.2 + 0.7 + 0.4) / 3)


def test_proposal_losses_are_divided_by_256_anchors_per_image():
    rpn = ProposalNetwork(8, pre_nms=(10, 10), post_nms=(5, 5))
    labels = [torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.0, -1.0, -1.0])]
    logits = torch.tensor([[2.0], [-1.0], [50.0], [3.0], [50.0], [50.0]])
    deltas = torch.full((6, 4), 7.0)
    deltas[0] = torch.tensor([0.5, 0.0, 0.0, -0.25])
    targets = [torch.zeros(3, 4), torch.zeros(3, 4)]
    object_loss, box_loss = rpn.compute_loss(logits, deltas, labels, targets)
    expected = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))
    assert object_loss.item() == pytest.approx(expected / 512)
    assert box_loss.item() == pytest.approx(0.75 / 512)


def test_proposals_whose_probability_saturates_keep_the_order_of_their_logits():
    rpn = ProposalNetwork(8, pre_nms=(10, 10), post_nms=(5, 5)).eval()
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 11.0], [30.0, 30.0, 30.0, 40.0]])
    logits = torch.tensor([60.0, 90.0, 99.0])  # all three are 1.0 after a sigmoid in float32
    (kept,), (scores,) = rpn.filter_proposals(boxes[None], logits, [(50, 50)], [3])
    assert kept.tolist() == [[0.0, 0.0, 10.0, 11.0]] and scores.tolist() == [90.0]


def test_a_batch_is_padded_to_its_own_largest_sides_after_normalisation():
    batch = tiny_detector().normalized([torch.full((3, 50, 62), 255.0), torch.full((3, 64, 47), 255.0)])
    assert batch.tensors.shape == (2, 3, 64, 62) and batch.image_sizes == [(50, 62), (64, 47)]
    assert batch.tensors[0, 0, 0, 0].item() == pytest.approx((255 - 123.675) / 58.395)
    assert batch.tensors[0, :, 50:].abs().max() == 0 and batch.tensors[1, :, :, 47:].abs().max() == 0


def test_any_residual_trunk_fits_and_every_part_learns():
    model = tiny_detector().train()
    losses = model(c4_case.make_images(), c4_case.make_targets())
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_an_image_without_objects_trains_as_background():
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = tiny_detector().train()(c4_case.make_images()[:1], [empty])
    assert losses["loss_box_reg"].item() == 0 and losses["loss_rpn_box_reg"].item() == 0
    assert losses["loss_classifier"].item() > 0


def test_an_image_without_proposals_has_no_detections():
    heads = tiny_detector().eval().roi_heads
    with torch.no_grad():
        (found,), _ = heads({"res4": torch.zeros(1, 256, 4, 4)}, [torch.zeros(0, 4)], [(64, 64)])
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "labels": (0,),
    }


def test_another_kind_of_backbone_is_refused():
    with pytest.raises(UserError, match="SqueezeNet"):
        Detector(squeezenet1_0(), 3)


def test_only_batch_norm_is_spared_from_weight_decay():
    model = tiny_detector()
    decayed, spared = parameter_groups(model, 1e-4)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (1e-4, 0.0)
    norms = sum(2 for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert len(spared["params"]) == norms
    assert len(decayed["params"]) + norms == len(list(model.parameters()))
    assert any(p is model.rpn.head.cls_logits.bias for p in decayed["params"])


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm1d(8), nn.SyncBatchNorm(8), nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.InstanceNorm2d(8, affine=True)],
)
def test_norms_of_every_kind_are_spared_from_weight_decay(norm):
    """Those that detectron2 spares, too."""
    layer = nn.Conv2d(3, 8, 1)
    decayed, spared = parameter_groups(nn.Sequential(layer, norm), 1e-4)
    assert [id(p) for p in decayed["params"]] == [id(layer.weight), id(layer.bias)]
    assert [id(p) for p in spared["params"]] == [id(norm.weight), id(norm.bias)]


def test_the_norms_of_timms_trunks_are_spared_from_weight_decay():
    pytest.importorskip("timm")
    trunk = new_backbone("timm/convnext_atto")  # timm's LayerNorms are classes of its own
    decayed, spared = parameter_groups(trunk, 1e-4)
    names = {id(parameter): name for name, parameter in trunk.named_parameters()}
    assert {names[id(p)] for p in spared["params"]} == {
        f"{name}.{kind}"
        for name, module in trunk.named_modules()
        if isinstance(module, nn.LayerNorm)
        for kind in ("weight", "bias")
    }
    assert "stages.0.blocks.0.norm.weight" in {names[id(p)] for p in spared["params"]}
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def assert_same_detections(found: list[dict], expected: list[dict]) -> None:
    """Boxes within 0.001 px, scores within 1e-5, the same classes in the same order; some of each."""
    assert sum(len(result["boxes"]) for result in expected) >= 8
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["labels"].tolist() == torch.as_tensor(theirs["labels"]).tolist()
        torch.testing.assert_close(ours["boxes"], torch.as_tensor(theirs["boxes"]), atol=1e-3, rtol=0)
        torch.testing.assert_close(ours["scores"], torch.as_tensor(theirs["scores"]), atol=1e-5, rtol=0)


def assert_same_losses(found: list[dict], expected: list[dict]) -> None:
    """All four losses of all steps within 1e-5."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == {name: pytest.approx(value, abs=1e-5) for name, value in theirs.items()}


def test_detections_and_losses_equal_the_recorded_ones_of_detectron2():
    model = c4_case.make_detector(residual=0.5)
    with torch.no_grad():
        assert_same_detections(model.eval()(c4_case.make_images()), GOLDEN["detections"])
        losses = model.train()(c4_case.make_images(), c4_case.make_targets())
    assert_same_losses([{k: v.item() for k, v in losses.items()}], [GOLDEN["losses"]])


def test_a_short_training_gives_the_recorded_losses_of_detectron2():
    model = c4_case.make_detector(residual=0.05).train()
    history = c4_case.sgd_losses(model, lambda: model(c4_case.make_images(), c4_case.make_targets()), steps=2)
    assert_same_losses(history, GOLDEN["sgd"][:2])


@pytest.mark.detectron2
def test_detections_losses_and_six_training_steps_equal_those_of_detectron2():
    pytest.importorskip("detectron2", reason="detectron2 is not on the path", exc_type=ImportError)
    from tests.helpers import d2_case

    images, targets = c4_case.make_images(), c4_case.make_targets()
    ours = c4_case.make_detector(residual=0.5)
    theirs = d2_case.build_reference(ours, c4_case.NUM_CLASSES, c4_case.PROPOSALS)
    with torch.no_grad():
        assert_same_detections(ours.eval()(images), d2_case.detect(theirs, images))
        found, expected = ours.train()(images, targets), d2_case.losses(theirs, images, targets)
    assert_same_losses([{k: v.item() for k, v in found.items()}], [{k: v.item() for k, v in expected.items()}])

    ours = c4_case.make_detector(residual=0.05).train()
    theirs = d2_case.build_reference(ours, c4_case.NUM_CLASSES, c4_case.PROPOSALS)
    found = c4_case.sgd_losses(ours, lambda: ours(images, targets), steps=6)
    assert_same_losses(found, c4_case.sgd_losses(theirs, lambda: d2_case.losses(theirs, images, targets), steps=6))


@pytest.mark.detectron2
def test_random_sampling_picks_what_detectron2_picks_from_the_same_seed():
    pytest.importorskip("detectron2", reason="detectron2 is not on the path", exc_type=ImportError)
    from tests.helpers import d2_case

    images, targets = c4_case.make_images(), c4_case.make_targets()
    ours = c4_case.make_detector(residual=0.5).train()
    theirs = d2_case.build_reference(ours, c4_case.NUM_CLASSES, proposals=60)
    ours.rpn._post_nms_top_n["training"] = 60
    ours.roi_heads.fg_bg_sampler.batch_size_per_image = theirs.roi_heads.batch_size_per_image = 10
    ours.rpn.fg_bg_sampler.batch_size_per_image = theirs.proposal_generator.batch_size_per_image = 32
    with torch.no_grad():
        torch.manual_seed(5)
        found = ours(images, targets)
        torch.manual_seed(5)
        expected = d2_case.losses(theirs, images, targets)
    assert_same_losses([{k: v.item() for k, v in found.items()}], [{k: v.item() for k, v in expected.items()}])
