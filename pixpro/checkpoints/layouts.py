"""The key names of each project's checkpoints, and what they are called here."""

import re
from typing import NamedTuple

WRAPPERS = {"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
LEAF = r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
TRUNK = rf"(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01])){LEAF}"
HEAD = rf"(linear1|bn1|linear2){LEAF}"
# Every name that this project's models have, and no other: a tensor that would get a different name is left out.
OUR_NAMES = re.compile(
    rf"(momentum_)?encoder\.({TRUNK}|(instance_)?projector\.{HEAD})"
    rf"|propagation\.transform\.({HEAD}|weight|bias)|instance\.predictor\.{HEAD}"
)


class Layout(NamedTuple):
    """One project's key names: recognised by `signs`, the start of any name; renamed by `rules`, start to start."""

    writer: str
    method: str
    signs: tuple[str, ...]
    rules: dict[str, str]
    biased_heads: bool = True  # False: the first convolution of a head has no bias


def sequential(theirs: str, ours: str) -> dict[str, str]:
    """Rules for a head kept as nn.Sequential(convolution, BatchNorm, ReLU, convolution)."""
    return {f"{theirs}0.": f"{ours}linear1.", f"{theirs}1.": f"{ours}bn1.", f"{theirs}3.": f"{ours}linear2."}


OURS = Layout(
    "pixpro",
    "pixpro",
    (
        "encoder.projector.",
        "encoder.instance_projector.",
        "encoder.neck.",
        "encoder.trunk.",
        "momentum_encoder.",
        "propagation.",
        "instance.",
    ),
    {name: name for name in ("encoder.", "momentum_encoder.", "propagation.", "instance.")},
)

CONRADRY = {
    "encoder.backbone.": "encoder.",
    "mom_encoder.backbone.": "momentum_encoder.",
    **sequential("encoder.projection.", "encoder.projector."),
    **sequential("mom_encoder.projection.", "momentum_encoder.projector."),
}

# In order: the first whose signs appear is the writer.
LAYOUTS = (
    Layout(
        "conradry/pixpro-with-weights",
        "pixpro",
        ("ppm.transform.3.",),
        {**CONRADRY, **sequential("ppm.transform.", "propagation.transform.")},
        biased_heads=False,
    ),
    Layout(
        "conradry/pixpro-with-weights",
        "pixpro",
        ("encoder.backbone.", "mom_encoder."),
        {**CONRADRY, "ppm.transform.0.": "propagation.transform."},
        biased_heads=False,
    ),
    Layout(
        "Sungman-Cho/Propagate-Yourself-Pytorch",
        "pixpro",
        ("moment_encoder.", "base_encoder.projection.", "ppm.transform_block."),
        {
            **sequential("base_encoder.projection.", "encoder.projector."),
            **sequential("moment_encoder.projection.", "momentum_encoder.projector."),
            **sequential("ppm.transform_block.", "propagation.transform."),
            "ppm.transform_block.": "propagation.transform.",
            "base_encoder.": "encoder.",
            "moment_encoder.": "momentum_encoder.",
        },
    ),
    Layout(
        "MoCo v3", "mocov3", ("base_encoder.",), {"base_encoder.": "encoder.", "momentum_encoder.": "momentum_encoder."}
    ),
    Layout(
        "DenseCL", "densecl", ("encoder_q.0.conv1.",), {"encoder_q.0.": "encoder.", "encoder_k.0.": "momentum_encoder."}
    ),
    Layout("MoCo", "moco", ("encoder_q.",), {"encoder_q.": "encoder.", "encoder_k.": "momentum_encoder."}),
    OURS,
    Layout(
        "zdaxie/PixPro",
        "pixpro",
        (
            "encoder_k.",
            "projector.linear",
            "projector.bn1.",
            "projector_k.",
            "projector_instance",
            "value_transform.",
            "predictor.linear",
            "predictor.bn1.",
        ),
        {
            "encoder.": "encoder.",
            "projector.": "encoder.projector.",
            "projector_instance.": "encoder.instance_projector.",
            "encoder_k.": "momentum_encoder.",
            "projector_k.": "momentum_encoder.projector.",
            "projector_instance_k.": "momentum_encoder.instance_projector.",
            "value_transform.": "propagation.transform.",
            "predictor.": "instance.predictor.",
        },
    ),
    Layout("SimSiam", "simsiam", ("encoder.fc.",), {"encoder.": "encoder."}),
    Layout("a trunk under encoder.", "unknown", ("encoder.",), {"encoder.": "encoder."}),
    Layout("a trunk under backbone.", "unknown", ("backbone.",), {"backbone.": "encoder."}),
    Layout("torchvision names", "unknown", ("conv1.", "bn1.", "layer"), {"": "encoder."}),
)


def without_wrappers(name: str) -> str:
    """A tensor's name without the parts of DistributedDataParallel, torch.compile and others, wherever they stand."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def layout_of(names: list[str]) -> Layout | None:
    """Who wrote a state dict with these names; None for nobody known."""
    for layout in LAYOUTS:
        if any(name.startswith(layout.signs) for name in names):
            return layout
    return None


def rename(name: str, layout: Layout) -> str | None:
    """Our name for one of theirs; None if it has no place here."""
    rule = max((start for start in layout.rules if name.startswith(start)), key=len, default=None)
    if rule is None:
        return None
    ours = layout.rules[rule] + name.removeprefix(rule)
    return ours if layout is OURS or OUR_NAMES.fullmatch(ours) else None
