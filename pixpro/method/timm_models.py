"""timm's models as backbones: made without a classifier, for images of any size, and asked for their maps c2 to c5."""

from typing import Any, NamedTuple

from torch import Tensor, nn

TIMM = "timm/"
MAPS = ("c2", "c3", "c4", "c5")
STRIDES = (4, 8, 16, 32)
TimmModel = Any  # a module of timm's: torch takes each of its attributes for a tensor or a module


class Taps(NamedTuple):
    """Where a timm model gives c2 to c5."""

    indices: tuple[int, ...]  # of its intermediate maps, c2 first
    channels: tuple[int, ...]


def is_timm(arch: str) -> bool:
    """Whether an arch is one of timm's."""
    return arch.startswith(TIMM)


def timm_model(arch: str, *, drop_path: float = 0.0, pretrained: bool = False) -> nn.Module:
    """timm's model of this arch without classifier, for images of any size; ValueError when there is none."""
    timm, name = import_timm(), arch.removeprefix(TIMM)
    if not timm.is_model(name):  # of timm's registry: nothing is fetched for a name from a file
        raise ValueError(f"timm {timm.__version__} has no model {name!r}; timm.list_models() has the names")
    options: dict[str, object] = {"drop_path_rate": drop_path, "strict_img_size": False}
    while True:  # a family takes one of these, both, or none
        try:
            model = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
            break
        except TypeError as error:
            refused = next((option for option in options if option in str(error)), None)
            if refused is None or (refused == "drop_path_rate" and drop_path):
                raise ValueError(f"timm's {name} cannot be made like this: {error}") from None
            del options[refused]
    if drop_path and not random_layers(model):
        raise ValueError(f"timm's {name} has no drop path; leave drop path at 0")
    return model


def random_layers(module: nn.Module) -> list[nn.Module]:
    """The layers that draw at random in train mode: timm's DropPath, by its attribute."""
    return [part for part in module.modules() if getattr(part, "drop_prob", 0.0)]


def import_timm():
    """The package timm; ValueError that says how to get it where it is missing."""
    try:
        import timm
    except ImportError:
        raise ValueError("backbones named timm/... need the package timm: pip install -e .[timm]") from None
    return timm


def cut_after_c5(model: TimmModel, name: str) -> Taps:
    """Remove from a timm model, in place, what follows c5; returns where it gives c2 to c5.

    Of several maps of one stride the last is taken, as detectors do.
    """
    if not hasattr(model, "forward_intermediates"):
        raise ValueError(f"{name} has no forward_intermediates, from which timm's models give their maps; use another")
    strides = [info["reduction"] for info in model.feature_info]
    if not set(STRIDES) <= set(strides):
        found = ", ".join(str(stride) for stride in sorted(set(strides)))
        raise ValueError(f"{name} gives maps of stride {found}; a pyramid of strides 4, 8, 16 and 32 is needed")
    indices = tuple(len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES)
    taps = Taps(indices, tuple(model.feature_info[index]["num_chs"] for index in indices))
    model.prune_intermediate_layers(list(indices), prune_norm=True, prune_head=True)
    return taps


def timm_maps(model: TimmModel, taps: Taps, images: Tensor, last: str = "c5") -> dict[str, Tensor]:
    """The maps c2 to `last` of a timm model, channels first: (B, 3, H, W) -> {"c2": (B, C2, H / 4, W / 4), ...}."""
    indices = list(taps.indices[: MAPS.index(last) + 1])
    maps = model.forward_intermediates(
        images, indices=indices, stop_early=True, output_fmt="NCHW", intermediates_only=True
    )
    return dict(zip(MAPS, maps, strict=False))
