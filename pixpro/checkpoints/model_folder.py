"""A folder of weights, config and model card, as timm and the Hugging Face hub keep them: read, written, fetched."""

import json
import os
from pathlib import Path
from typing import Any

from pixpro.checkpoints.safe_load import load_untrusted
from pixpro.errors import UserError
from pixpro.method.timm_models import TIMM

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
HUB = "hf-hub:"
MAX_CONFIG = 1_000_000  # bytes; a config with the names of 20 000 classes has half of it


def folder_of(path: str | os.PathLike) -> Path | None:
    """The folder that a path is, or that the hub's repository `hf-hub:NAME[@REVISION]` was fetched into; else None."""
    text = os.fspath(path)
    if isinstance(text, str) and text.startswith(HUB):
        return fetched(text.removeprefix(HUB))
    return Path(path) if Path(path).is_dir() else None


def fetched(name: str) -> Path:
    """The local copy of a repository of the Hugging Face hub: of its weights, config and card alone."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{HUB}{name} needs the package huggingface_hub: pip install -e .[timm]") from None
    repository, _, revision = name.partition("@")
    try:
        wanted = [WEIGHTS, CONFIG, CARD]
        return Path(huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except Exception as error:  # the hub's own, and those of its network libraries
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{HUB}{name}: not here and could not be fetched ({reason})") from None


def read_folder(folder: Path) -> dict[str, Any]:
    """Weights and what is said about them, as {"state_dict": ..., "metadata": ...}; UserError for another folder.

    Folders of ours say which backbone they hold; in those of timm it is the model that their `architecture` names.
    """
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name} in it; expected a folder with {WEIGHTS} and {CONFIG}")
    try:
        with (folder / CONFIG).open("rb") as file:
            config = json.loads(file.read(MAX_CONFIG))
        about = dict(config.get("pixpro", {"arch": f"{TIMM}{config['architecture']}"}))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{folder / CONFIG}: expected JSON that names an architecture") from None
    return {"state_dict": load_untrusted(folder / WEIGHTS)["state_dict"], "metadata": about}


def config_of(about: dict[str, Any], num_features: int, timm_defaults: dict[str, Any]) -> dict[str, Any]:
    """What config.json holds: the model as timm makes it, without a classifier, and `about` as it is.

    timm_defaults: timm's own settings of the model, of which those that depend on its layers are kept.
    """
    kept = ("first_conv", "classifier", "pool_size", "fixed_input_size", "min_input_size")
    own = {name: timm_defaults[name] for name in kept if timm_defaults.get(name) is not None}
    side = about.get("image_size") or 224
    # timm builds some models for this size; another one would make windows that pre-training did not have.
    size = list(timm_defaults["input_size"]) if timm_defaults.get("fixed_input_size") else [3, side, side]
    return {
        "architecture": about["arch"].removeprefix(TIMM).partition(".")[0],
        "num_classes": 0,
        "num_features": num_features,
        "model_args": {"num_classes": 0},
        "pretrained_cfg": {
            **own,
            "tag": "pixpro",
            "num_classes": 0,
            "input_size": size,
            "mean": about["mean"],
            "std": about["std"],
            "interpolation": "bilinear",
        },
        "pixpro": about,
    }


def card(about: dict[str, Any], run: dict[str, Any]) -> str:
    """The model card: what the weights are, how they were made, how they are read.

    run: settings of the run; none where the checkpoint does not hold them.
    """
    rows = [f"| {name} | `{run[name]}` |" for name in SHOWN if name in run]
    table = "\n".join(["", "| setting of the run | |", "|---|---|", *rows, ""]) if rows else ""
    epochs = f", {about['epoch']} epochs" if about.get("epoch") is not None else ""
    last = about["trained_up_to"]
    untrained = "" if last == "c5" else f" What follows {last} is as initialised: the loss saw {last}."
    return f"""---
library_name: timm
tags:
- image-feature-extraction
- self-supervised
- timm
---

# {about["arch"]}, pre-trained without labels

The backbone of a dense self-supervised pre-training: {about["method"]}{epochs}. It has no classifier.{untrained}
What follows the last stage in timm's model (a norm, a last convolution) is as initialised, too.
Images are RGB in 0..1, normalised with mean {about["mean"]} and standard deviation {about["std"]}.
{table}
```python
import pixpro

model = pixpro.load_backbone("FOLDER")  # or "hf-hub:NAME"
```

```python
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True)  # or "hf-hub:NAME"
maps = timm.create_model("local-dir:FOLDER", pretrained=True, features_only=True)
```
"""


SHOWN = (
    *("loss", "arch", "neck", "levels", "epochs", "batch_size", "optimizer", "lr_base", "lr_rule"),
    *("weight_decay", "image_size", "crop_min", "threshold", "instance_weight", "init"),
)
