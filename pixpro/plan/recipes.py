"""What suits few images, as defaults in place of the published recipe's, and as the flags that they stand for."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

# What learned from a few hundred images in some hundred steps (docs/evidence.md): 8 x 8 cells of a stage of the trunk,
# more steps of fewer images, and for PixPro the instance branch in the paper's form.
SMALL = {
    "neck": "stage",
    "levels": [3],
    "hidden_dim": 512,
    "dim": 128,
    "image_size": 64,
    "batch_size": 16,
    "epochs": 30,
    "warmup_epochs": 1.0,
    "lr_base": 8.0,
}
SMALL_PIXPRO = SMALL | {"instance_weight": 1.0, "instance_loss": "contrast"}
# The recipe on the smallest ResNet, in minutes on two CPU cores; in the same precision on CPUs with and without
# half-precision instructions.
DEMO = {"recipe": "small", "arch": "resnet18", "log_every": 10, "eval_every": 0, "amp": "off"}


def recipe_defaults(given: Namespace) -> dict[str, Any]:
    """The defaults that a command line asks for by its --recipe or --demo, where they are not the published ones."""
    if not given.demo and given.recipe == "published":
        return {}
    small = SMALL_PIXPRO if given.loss == "pixpro" else SMALL
    return small | DEMO if given.demo else small


def recipe_line(settings: Mapping[str, Any]) -> str:
    """What a recipe other than the published one set, as flags."""
    if settings["recipe"] == "published":
        return ""
    values = {name: settings[name] for name in (SMALL_PIXPRO if settings["loss"] == "pixpro" else SMALL)}
    flags = (f"--{name} {' '.join(map(str, v)) if isinstance(v, list) else v}" for name, v in values.items())
    return f"recipe {settings['recipe']}: {' '.join(flags)}\n"
