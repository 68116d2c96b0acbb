"""A checkpoint of any known project -> a file or folder with its backbone alone, as torchvision, timm or mmdet read it.

    python -m pixpro export CHECKPOINT OUT --format torchvision|timm|safetensors|mmdet|folder [--hash]

Key names of ResNets are torchvision's, which timm and mmdet share; those of timm's backbones are timm's. What is
written is read again and its features compared with the checkpoint's, bit by bit, before it takes its place.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pixpro.checkpoints.convert import Checkpoint, load_backbone, read_checkpoint
from pixpro.checkpoints.model_folder import CARD, CONFIG, WEIGHTS, card, config_of, folder_of
from pixpro.checkpoints.trunk import TIMM_TRUNK, backbone
from pixpro.errors import UserError, one_line_errors
from pixpro.method.encoder import Encoder
from pixpro.method.timm_models import MAPS, is_timm
from pixpro.method.trunks import Pyramid, libraries

FORMATS = ("torchvision", "timm", "safetensors", "mmdet")  # of files
FOLDER = "folder"
OF_TIMM = ("timm", "safetensors", FOLDER)  # those that can hold timm's backbones


def export(checkpoint: Path, out: Path, format: str | None = None, add_hash: bool = False) -> Path:
    """Write the backbone of a checkpoint's online encoder; returns where, with `-<sha256>` in the name if asked.

    format: one of FORMATS or FOLDER; by default torchvision, or timm for its backbones. What is written appears
    complete and verified, or not at all. Raises UserError when the checkpoint has no whole backbone or the format
    cannot hold it.
    """
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder; make it first")
    if out.is_dir() or (out.exists() and out.samefile(checkpoint)):
        raise UserError(f"{out}: is {'a folder' if out.is_dir() else 'the checkpoint itself'}; name another file")
    if format == FOLDER and add_hash:
        raise UserError("--hash names a file after its contents; leave it out with --format folder")
    source = read_checkpoint(checkpoint)
    format = format or ("timm" if is_timm(source.arch) else "torchvision")
    if is_timm(source.arch) and format not in OF_TIMM:
        raise UserError(f"--format {format} cannot hold a {source.arch}; use --format {', '.join(OF_TIMM)}")
    # Through a model: complete, in float32, and with BatchNorm's counters even if the checkpoint is too old for them.
    model = backbone(source.trunk(), source.arch)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        folder = folder_of(checkpoint)
        about = metadata(source, sha256(folder / WEIGHTS if folder else checkpoint))
        if format == FOLDER:
            write_folder(partial, model, about, source.config)
        else:
            write(partial, OrderedDict(model.state_dict()), about, format)
        verify(partial, source)
        if add_hash:
            out = out.with_name(f"{out.stem}-{sha256(partial)[:8]}{out.suffix}")
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
    return out


def metadata(source: Checkpoint, digest: str) -> dict[str, Any]:
    """What a reader must know to use the weights: the network, the pixels it expects, and where they come from."""
    return {
        "arch": source.arch,
        "library": " ".join(f"{name} {version}" for name, version in libraries(source.arch).items()),
        "trained_up_to": source.trained_up_to,
        "image_size": image_side(source.config),
        "method": source.method,
        "epoch": source.epoch,
        "writer": source.writer,
        "channels": "RGB",
        "range": [0.0, 1.0],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "stride": "in the 3x3 convolution (detectron2: STRIDE_IN_1X1 False; mmdet: style pytorch)",
        "checkpoint_sha256": digest,
    }


def image_side(config: dict[str, Any]) -> int | None:
    """Side of the images that a run with these settings saw, if they say so."""
    side = config.get("image_size")
    return side if isinstance(side, int) and 32 <= side <= 1024 else None


def write_folder(folder: Path, model: nn.Module, about: dict[str, Any], run: dict[str, Any]) -> None:
    """Write a folder of weights, config and model card."""
    folder.mkdir()
    defaults = getattr(model, "pretrained_cfg", {"first_conv": "conv1", "classifier": "fc"})  # torchvision's have none
    width = cast(int, model.num_features) if is_timm(about["arch"]) else Pyramid(model).channels[-1]
    write(folder / WEIGHTS, OrderedDict(model.state_dict()), about, "safetensors")
    config = config_of(about, width, dict(defaults))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card(about, run), encoding="utf-8")


def write(path: Path, trunk: "OrderedDict[str, Tensor]", about: dict[str, Any], format: str) -> None:
    """Write tensors and metadata in one of FORMATS, down to the disk.

    torchvision: the bare state dict, the metadata as its attribute `metadata`. timm: `state_dict`, `arch`, `metadata`.
    mmdet: `state_dict`, `meta`. safetensors: tensors, and the metadata as JSON values in the header.
    """
    if format == "safetensors":
        header = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
        path.write_bytes(save(dict(trunk), header))  # its own writer makes files that nobody else may read
    else:
        contents: Any = trunk
        if format == "torchvision":
            trunk.metadata = about  # type: ignore[attr-defined]  # unknown to the stubs; torch.save keeps it
        elif format == "timm":
            contents = {"state_dict": trunk, "arch": about["arch"], "metadata": about}
        else:
            contents = {"state_dict": trunk, "meta": about}
        torch.save(contents, path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@torch.no_grad()
def verify(path: Path, source: Checkpoint) -> None:
    """Read a written file as a user would, and raise unless its features are those of the checkpoint's encoder."""
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(source.arch, hidden_dim=1, dim=1)
    below = TIMM_TRUNK if is_timm(source.arch) else ""
    encoder.load_state_dict({f"{below}{name}": tensor for name, tensor in source.trunk().items()}, strict=False)
    exported = Pyramid(load_backbone(path, source.arch)).eval()
    side = image_side(source.config) or 64  # some backbones of timm take one size alone
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    found, expected = exported(images), encoder.eval().features(images)
    if not all(torch.equal(found[name], expected[name]) for name in MAPS):
        raise UserError(f"{path}: reads back with features unlike the checkpoint's; not kept")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Exit code of the command line: 0, or 2 for wrong input with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m pixpro export", description="Write a checkpoint's backbone alone.")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="of this or any other known project")
    parser.add_argument("out", type=Path, metavar="OUT", help="file or folder to write")
    parser.add_argument(
        "--format",
        choices=(*FORMATS, FOLDER),
        help="who will read it (default: torchvision, or timm for its backbones)",
    )
    parser.add_argument("--hash", action="store_true", help="put the start of the file's sha256 into its name")
    args = parser.parse_args(argv)
    out = export(args.checkpoint, args.out, args.format, args.hash)
    print(f"wrote {out} ({args.format or 'default format'}); read back with the same features")
    return 0
