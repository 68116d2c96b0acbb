"""Backbones of both libraries: the maps they give are the library's own, the loss sees the one it was told to."""

import re
import sys

import pytest
import torch
import torchvision
from torch import nn

from pixpro import PixPro, View
from pixpro.method import trunks
from pixpro.method.encoder import Encoder, momentum_copy
from pixpro.method.timm_models import MAPS, STRIDES, random_layers
from pixpro.method.trunks import Pyramid, map_shapes, new_backbone

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
BOX = torch.tensor([[0.1, 0.2, 0.8, 0.9], [0.6, 0.1, 0.2, 0.7]])
FAMILIES = ["timm/resnet18", "timm/convnext_atto", "timm/regnetx_002", "timm/mobilenetv4_conv_small"]


def encoder_of(arch: str, **options: object) -> Encoder:
    torch.manual_seed(0)
    return Encoder(arch, hidden_dim=8, dim=4, **options)


def views(side: int = 64) -> tuple[View, View]:
    torch.manual_seed(2)
    return tuple(View(torch.randn(2, 3, side, side), BOX) for _ in range(2))


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_maps_are_those_of_timms_own_feature_networks(arch):
    timm = pytest.importorskip("timm")
    encoder = encoder_of(arch).eval()
    own = timm.create_model(arch.removeprefix("timm/"), features_only=True).eval()
    # The same layers in the same order under other names; what follows c5 is in neither.
    weights = list(encoder.trunk.state_dict().values())
    names = list(own.state_dict())
    assert len(names) == len(weights)
    own.load_state_dict(dict(zip(names, weights, strict=True)))
    expected = [cells for cells, r in zip(own(IMAGES), own.feature_info.reduction(), strict=True) if r in STRIDES]
    found = encoder.features(IMAGES)
    assert list(found) == list(MAPS)
    assert all(torch.equal(a, b) for a, b in zip(found.values(), expected, strict=True))


def test_one_network_gives_the_same_maps_from_both_libraries():
    pytest.importorskip("timm")
    ours, theirs = new_backbone("resnet18"), new_backbone("timm/resnet18")
    theirs.load_state_dict(ours.state_dict())
    maps = [Pyramid(model).eval()(IMAGES) for model in (ours, theirs)]
    for name in MAPS:
        torch.testing.assert_close(maps[0][name], maps[1][name])
    assert Pyramid(ours).channels == Pyramid(theirs).channels == (64, 128, 256, 512)


def test_the_maps_of_a_resnet_are_those_of_its_layers_one_after_the_other():
    encoder = encoder_of("resnet18").eval()
    model = torchvision.models.resnet18()
    model.load_state_dict(encoder.state_dict(), strict=False)
    model.eval()
    seen = {}
    for number, name in enumerate(MAPS, start=1):
        getattr(model, f"layer{number}").register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    model(IMAGES)
    assert all(torch.equal(cells, seen[name]) for name, cells in encoder.features(IMAGES).items())


def test_a_swin_whose_maps_have_their_channels_last_gives_them_first_for_any_size():
    pytest.importorskip("timm")
    pyramid = Pyramid(new_backbone("timm/swin_tiny_patch4_window7_224")).eval()
    with torch.no_grad():
        shapes = {name: tuple(cells.shape[1:]) for name, cells in pyramid(IMAGES).items()}
    assert shapes == {"c2": (96, 16, 24), "c3": (192, 8, 12), "c4": (384, 4, 6), "c5": (768, 2, 3)}


@pytest.mark.parametrize("arch", ["resnet18", "timm/regnetx_002"])
@pytest.mark.parametrize("side", [64, 72])
def test_the_shapes_that_are_foretold_are_those_that_come(arch, side):
    if trunks.is_timm(arch):
        pytest.importorskip("timm")
    encoder = encoder_of(arch)
    found = {name: tuple(cells.shape[1:]) for name, cells in encoder.features(torch.zeros(2, 3, side, side)).items()}
    assert map_shapes(arch, side) == found
    assert encoder.map_side(side) == encoder(torch.zeros(2, 3, side, side)).maps[-1].shape[-1]
    assert encoder.training


@pytest.mark.parametrize("arch", ["resnet18", "timm/convnext_atto"])
@pytest.mark.parametrize(
    ("options", "sides"),
    [({}, [2]), ({"neck": "stage", "levels": [4]}, [4]), ({"neck": "fpn", "levels": (3, 4)}, [8, 4])],
)
def test_the_loss_sees_the_map_that_it_is_told(arch, options, sides):
    if trunks.is_timm(arch):
        pytest.importorskip("timm")
    encoder = encoder_of(arch, **options)
    maps = encoder(torch.randn(2, 3, 64, 64)).maps
    assert [cells.shape[-1] for cells in maps] == sides
    assert 2**encoder.level == 64 // sides[-1] and encoder.map_side(64) == sides[-1]


@pytest.mark.parametrize("arch", ["resnet18", "timm/convnext_atto", "timm/regnetx_002"])
@pytest.mark.parametrize("neck", ["none", "stage", "fpn"])
@pytest.mark.parametrize("instance", [0.0, 1.0])
def test_what_is_trained_has_a_gradient_and_only_an_unseen_last_stage_stays(arch, neck, instance):
    if trunks.is_timm(arch):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = PixPro(arch, hidden_dim=8, dim=4, neck=neck, levels=[4], instance_weight=instance)
    model(*views()).backward()
    trunk = [item for item in model.encoder.named_parameters() if not re.match(r"neck\.|\w*projector\.", item[0])]
    still = [name for name, parameter in trunk if parameter.grad is None]
    assert [name for name, p in trunk if not p.requires_grad] == still
    last = {"resnet18": r"layer4\.", "timm/convnext_atto": r"trunk\.stages\.3\.", "timm/regnetx_002": r"trunk\.s4\."}
    stage = [n for n, _ in model.encoder.named_parameters() if re.match(last[arch], n)]
    assert stage and still == (stage if neck == "stage" else [])


def test_what_no_map_depends_on_is_found_within_a_network_of_branches():
    pytest.importorskip("timm")
    idle = trunks.timm_idle("timm/hrnet_w18_small", ("c5",))
    encoder = encoder_of("timm/hrnet_w18_small")
    encoder(torch.randn(2, 3, 64, 64)).maps[0].sum().backward()
    still = {name.removeprefix("trunk.") for name, p in encoder.named_parameters() if p.grad is None}
    assert idle == still and len(idle) > 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arch": "vgg16"}, "unknown arch 'vgg16'"),
        ({"neck": "none of these"}, "unknown neck"),
        ({"neck": "stage", "levels": (3, 4)}, "works on one level"),
        ({"drop_path": 0.1}, "for backbones of timm"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        encoder_of(**{"arch": "resnet18", **options})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_tiny_patch16_224", "gives maps of stride 16; a pyramid of strides 4, 8, 16 and 32 is needed"),
        ("eva02_tiny_patch14_224", "gives maps of stride 14"),
        ("no_such_model", "has no model 'no_such_model'"),
        ("hf-hub:someone/something", "has no model"),
    ],
)
def test_models_without_a_pyramid_are_refused_with_the_reason(name, said):
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        trunks.check_arch(f"timm/{name}")
    assert "\n" not in str(error.value)


def test_a_size_that_a_model_was_not_made_for_is_refused_in_one_line():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="timm/test_coatnet cannot take images of 64 px") as error:
        map_shapes("timm/test_coatnet", 64)
    assert "\n" not in str(error.value)


def test_a_model_without_drop_path_refuses_it():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="has no drop path|cannot be made like this"):
        trunks.timm_model("timm/hrnet_w18_small", drop_path=0.1)


def test_without_timm_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    trunks.timm_taps.cache_clear()
    with pytest.raises(ValueError, match=re.escape("need the package timm: pip install -e .[timm]")):
        trunks.check_arch("timm/convnext_atto")
    trunks.check_arch("resnet50")


def test_drop_path_leaves_out_branches_in_training_and_never_in_the_momentum_encoder():
    pytest.importorskip("timm")
    encoder = encoder_of("timm/convnext_atto", drop_path=0.5)
    twin = momentum_copy(encoder)
    assert random_layers(encoder) and not random_layers(twin)
    torch.manual_seed(0)
    online = [encoder(IMAGES).maps[0] for _ in range(2)]
    targets = [twin(IMAGES).maps[0] for _ in range(2)]
    assert not torch.equal(*online) and torch.equal(*targets)
    whole = encoder_of("timm/convnext_atto")
    whole.load_state_dict(encoder.state_dict())
    assert torch.equal(whole(IMAGES).maps[0], targets[0])


def test_heads_fit_every_trunk():
    pytest.importorskip("timm")
    for arch in FAMILIES:
        encoder = encoder_of(arch, instance=True)
        width = encoder.features(IMAGES)["c5"].shape[1]
        heads = (encoder.projector, encoder.instance_projector)
        assert [head.linear1.in_channels for head in heads] == [width, width]
        assert all(isinstance(head.bn1, nn.BatchNorm2d) for head in heads)
