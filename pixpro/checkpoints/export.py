"""A checkpoint of any known project -> a file with its backbone alone, as torchvision, timm or mmdet read it.

    python -m pixpro export CHECKPOINT OUT --format torchvision|timm|safetensors|mmdet [--hash]

Key names are torchvision's, which timm and mmdet share. What is written is read again and its features compared
with the checkpoint's, bit by bit, before it takes its place.
"""

import argparse
import hashlib
import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pixpro.checkpoints.backbone import backbone, load_backbone
from pixpro.checkpoints.convert import Checkpoint, read_checkpoint
from pixpro.errors import UserError
from pixpro.method.encoder import Encoder

FORMATS = ("torchvision", "timm", "safetensors", "mmdet")


def export(checkpoint: Path, out: Path, format: str = "torchvision", add_hash: bool = False) -> Path:
    """Write the backbone of a checkpoint's online encoder; returns where, with `-<sha256>` in the name if asked.

    The file appears complete and verified, or not at all. Raises UserError when the checkpoint has no whole backbone.
    """
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder; make it first")
    if out.is_dir() or (out.exists() and out.samefile(checkpoint)):
        raise UserError(f"{out}: is {'a folder' if out.is_dir() else 'the checkpoint itself'}; name another file")
    source = read_checkpoint(checkpoint)
    # Through a model: complete, in float32, and with BatchNorm's counters even if the checkpoint is too old for them.
    trunk = OrderedDict(backbone(source.trunk(), source.arch).state_dict())
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        write(partial, trunk, metadata(source, sha256(checkpoint)), format)
        verify(partial, source)
        if add_hash:
            out = out.with_name(f"{out.stem}-{sha256(partial)[:8]}{out.suffix}")
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)
    return out


def metadata(source: Checkpoint, digest: str) -> dict[str, Any]:
    """What a reader must know to use the weights: the network, the pixels it expects, and where they come from."""
    return {
        "arch": source.arch,
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
            trunk.metadata = about
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
    with torch.device("meta"):
        encoder = Encoder(source.arch, hidden_dim=1, dim=1)
    encoder.to_empty(device="cpu").load_state_dict(source.trunk(), strict=False)
    exported = load_backbone(path, source.arch)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.adaptive_avg_pool2d(encoder.eval().features(images)["c5"], 1).flatten(1)
    if not torch.equal(exported.eval()(images), expected):
        raise UserError(f"{path}: reads back with features unlike the checkpoint's; not kept")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def main(argv: list[str] | None = None) -> int:
    """Exit code of the command line: 0, or 2 for wrong input with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m pixpro export", description="Write a checkpoint's backbone alone.")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="of this or any other known project")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write")
    parser.add_argument(
        "--format", choices=FORMATS, default="torchvision", help="who will read it (default: %(default)s)"
    )
    parser.add_argument("--hash", action="store_true", help="put the start of the file's sha256 into its name")
    args = parser.parse_args(argv)
    try:
        out = export(args.checkpoint, args.out, args.format, args.hash)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {out} ({args.format}); read back with the same features")
    return 0
