"""The FPN detector is the same model as detectron2's, boxes and masks; it takes any backbone and a pre-trained neck."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.detection.image_list import ImageList

from downstream.detection.c4_proposals import CellAnchors, ProposalNetwork
from downstream.detection.detector import FPN_LEVELS, Detector, FPNDetector
from downstream.detection.fpn_heads import LevelPool, MaskHead, cropped, level_of, pasted
from pixpro.errors import UserError
from pixpro.method.encoder import Encoder
from pixpro.method.trunks import new_backbone
from tests.helpers import c4_case

SMALL = dict(regions_per_image=16, test_proposals=20)


def with_masks(images: list[Tensor], targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The targets with an ellipse in each box as its mask."""
    for image, target in zip(images, targets, strict=True):
        y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in image.shape[1:]), indexing="ij")
        x0, y0, x1, y1 = (side[:, None, None] for side in target["boxes"].unbind(dim=1))
        across, down = (x - (x0 + x1) / 2) / ((x1 - x0) / 2), (y - (y0 + y1) / 2) / ((y1 - y0) / 2)
        target["masks"] = (across**2 + down**2 <= 1).to(torch.uint8)
    return targets


def made(trunk: nn.Module, masks: bool, residual: float = 0.2) -> FPNDetector:
    """A detector of 3 classes whose weights follow from their position alone."""
    model = FPNDetector(trunk, 3, masks=masks, **SMALL)
    c4_case.fill(model)
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith("bn3") or (name.endswith("bn2") and trunk.layer1[0].expansion == 1):
                module.weight.mul_(residual)
        for layer in (model.rpn.head.conv[0][0], model.rpn.head.bbox_pred, model.roi_heads.box_predictor.bbox_pred):
            layer.weight.mul_(0.1)
        model.roi_heads.box_predictor.cls_score.weight.mul_(0.1)
    return model


def test_each_level_has_anchors_of_one_size_around_its_own_cells():
    maps = [torch.zeros(1, 8, 4 >> place or 1, 4 >> place or 1) for place in range(5)]
    (anchors,) = CellAnchors(FPN_LEVELS)(ImageList(torch.zeros(1, 3, 16, 16), [(16, 16)]), maps)
    counts = [3 * cells.shape[-1] ** 2 for cells in maps]
    assert len(anchors) == sum(counts)
    for place, part in enumerate(anchors.split(counts)):
        areas = (part[:, 2] - part[:, 0]) * (part[:, 3] - part[:, 1])
        torch.testing.assert_close(areas, torch.full_like(areas, (32.0 * 2**place) ** 2))
    torch.testing.assert_close(anchors[3] - anchors[0], torch.tensor([4.0, 0.0, 4.0, 0.0]))


def test_the_best_of_each_level_are_kept_and_levels_do_not_suppress_each_other():
    rpn = ProposalNetwork(8, pre_nms=(1, 1), post_nms=(5, 5), levels=((4, (32,)), (8, (64,)))).eval()
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
    (kept,), (scores,) = rpn.filter_proposals(boxes[None], torch.tensor([3.0, 2.0, 1.0]), [(50, 50)], [2, 1])
    assert len(kept) == 2 and scores.tolist() == [3.0, 1.0]


@pytest.mark.parametrize("side, level", [(1, 2), (111, 2), (112, 3), (223, 3), (224, 4), (447, 4), (448, 5), (5000, 5)])
def test_a_region_is_read_from_the_level_of_its_size(side, level):
    assert level_of(torch.tensor([[3.0, 3.0, 3.0 + side, 3.0 + side]])).item() == level - 2


def test_regions_of_all_levels_come_back_in_their_order():
    features = {
        f"p{level}": torch.full((2, 1, 512 // 2**level, 512 // 2**level), float(level)) for level in range(2, 6)
    }
    sides = [20.0, 500.0, 230.0, 120.0]
    boxes = [torch.tensor([[0.0, 0.0, side, side] for side in sides]), torch.tensor([[0.0, 0.0, 470.0, 470.0]])]
    pooled = LevelPool(7)(features, boxes, [(512, 512)] * 2)
    assert pooled.shape == (5, 1, 7, 7)
    assert pooled.mean(dim=(1, 2, 3)).round().tolist() == [2, 5, 4, 3, 5]


def test_a_mask_is_cropped_to_its_box_and_pasted_back():
    mask = torch.zeros(1, 60, 80, dtype=torch.uint8)
    mask[0, 10:38, 20:48] = 1
    box = torch.tensor([[20.0, 10.0, 76.0, 38.0]])  # its left half
    small = cropped(mask, box, 28)
    assert small.shape == (1, 28, 28) and small[0, :, :14].all() and not small[0, :, 14:].any()
    assert torch.equal(pasted(small.float(), box, 60, 80), mask.bool())


def test_a_mask_costs_the_cross_entropy_of_its_own_class():
    head = MaskHead(2, 8)
    nn.init.zeros_(head.predictor.weight)
    head.predictor.bias.data = torch.tensor([1.0, -2.0])
    features = {f"p{level}": torch.randn(1, 8, 64 // 2**level, 64 // 2**level) for level in range(2, 6)}
    proposals, target = [torch.tensor([[0.0, 0.0, 40.0, 40.0], [5.0, 5.0, 9.0, 9.0]])], torch.ones(1, 64, 64)
    labels, matches = [torch.tensor([2, 0])], [torch.tensor([0, 0])]
    loss = head.loss(features, proposals, labels, matches, [{"masks": target}], [(64, 64)])
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(torch.tensor(2.0)).item(), rel=1e-5)


@pytest.mark.parametrize("masks", [False, True])
def test_every_part_learns_and_a_batch_is_padded_to_whole_cells(masks):
    model = FPNDetector(resnet18(), 3, masks=masks, **SMALL).train()
    images = c4_case.make_images()
    assert model.normalized(images).tensors.shape == (2, 3, 64, 64)
    losses = model(images, with_masks(images, c4_case.make_targets()))
    assert len(losses) == 4 + masks
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_pretrained_neck_is_taken_as_far_as_it_was_trained():
    torch.manual_seed(1)
    encoder = Encoder("resnet18", 16, 8, neck="fpn", levels=(3, 4, 5)).train()
    encoder(torch.randn(2, 3, 64, 64))
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    model = FPNDetector(resnet18(), 3, **SMALL)
    before = {name: tensor.clone() for name, tensor in model.neck.state_dict().items()}
    assert model.take_neck(weights) == 6  # three levels, two blocks each
    for name, tensor in model.neck.state_dict().items():
        trained = name.split(".")[1] != "0"  # block 0 is that of c2
        assert torch.equal(tensor, weights[f"encoder.neck.{name}"] if trained else before[name])


def test_a_neck_of_another_width_is_refused():
    weights = {"encoder.neck.inner_blocks.0.0.weight": torch.zeros(256, 7, 1, 1)}
    weights["encoder.neck.inner_blocks.0.1.num_batches_tracked"] = torch.tensor(3)
    with pytest.raises(UserError, match="altered"):
        FPNDetector(resnet18(), 3, **SMALL).take_neck(weights)


def test_a_backbone_without_the_maps_is_named():
    with pytest.raises(UserError, match="strides 4 to 32"):
        FPNDetector(nn.Sequential(nn.Conv2d(3, 8, 3)), 3)


def test_the_c4_detector_points_to_this_one_for_other_backbones():
    with pytest.raises(UserError, match="--detector fpn"):
        Detector(nn.Sequential(), 3)


@pytest.mark.detectron2
@pytest.mark.parametrize("trunk, depth", [(resnet18, 18), (resnet50, 50)])
def test_detections_masks_and_losses_equal_those_of_detectron2(trunk, depth):
    pytest.importorskip("detectron2", reason="detectron2 is not on the path", exc_type=ImportError)
    from tests.helpers import d2_case, d2_fpn

    images = [image.repeat(1, 3, 3) for image in c4_case.make_images()]
    targets = [{**t, "boxes": t["boxes"] * 3} for t in c4_case.make_targets()]
    with_masks(images, targets)
    ours = made(trunk(), masks=True)
    theirs = d2_fpn.build_reference(ours, 3, depth)
    theirs.proposal_generator.post_nms_topk[False] = SMALL["test_proposals"]
    theirs.roi_heads.batch_size_per_image = SMALL["regions_per_image"]
    with torch.no_grad():
        found, expected = ours.eval()(images), d2_case.detect(theirs, images)
        assert sum(len(result["boxes"]) for result in expected) >= 8
        for mine, other, image in zip(found, expected, images, strict=True):
            assert mine["labels"].tolist() == other["labels"].tolist()
            torch.testing.assert_close(mine["boxes"], other["boxes"], atol=1e-3, rtol=0)
            torch.testing.assert_close(mine["scores"], other["scores"], atol=1e-5, rtol=0)
            masks = pasted(mine["masks"], mine["boxes"], *image.shape[1:])
            assert (masks != other["masks"]).float().mean() < 1e-4
            assert torch.equal(masks, d2_fpn.paste(mine["masks"], mine["boxes"], *image.shape[1:]))
        torch.manual_seed(5)
        losses = ours.train()(images, targets)
        torch.manual_seed(5)
        reference = d2_case.losses(theirs, images, targets)
    assert losses.keys() == reference.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(reference[name].item(), abs=1e-5), name


@pytest.mark.detectron2
def test_four_training_steps_equal_those_of_detectron2():
    pytest.importorskip("detectron2", reason="detectron2 is not on the path", exc_type=ImportError)
    from tests.helpers import d2_case, d2_fpn

    images = c4_case.make_images()
    targets = with_masks(images, c4_case.make_targets())
    ours = made(resnet18(), masks=True)
    theirs = d2_fpn.build_reference(ours, 3, 18)
    theirs.roi_heads.batch_size_per_image = SMALL["regions_per_image"]
    histories = []
    for model, forward in (
        (ours, lambda: ours.train()(images, targets)),
        (theirs, lambda: d2_case.losses(theirs, images, targets)),
    ):
        torch.manual_seed(3)
        histories.append(c4_case.sgd_losses(model, forward, steps=4))
    for mine, other in zip(*histories, strict=True):
        assert mine == {name: pytest.approx(value, abs=1e-5) for name, value in other.items()}


@pytest.mark.parametrize(
    "name", ["convnext_atto", "regnetx_002", "mobilenetv4_conv_small", "swin_tiny_patch4_window7_224"]
)
def test_backbones_of_timm_detect(name):
    pytest.importorskip("timm", reason="timm is not installed")
    model = FPNDetector(new_backbone(f"timm/{name}"), 3, masks=True, **SMALL).train()
    images = [
        nn.functional.pad(image, (0, 224 - image.shape[2], 0, 224 - image.shape[1])) for image in c4_case.make_images()
    ]
    losses = model(images, with_masks(images, c4_case.make_targets()))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert sum(p.grad is not None for p in model.backbone.parameters()) > 10
