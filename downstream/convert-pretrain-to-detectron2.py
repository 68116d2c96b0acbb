#!/usr/bin/env python
"""Checkpoint of any pre-training that pixpro reads -> weight file for detectron2, checked before it is written.

    python convert-pretrain-to-detectron2.py CHECKPOINT OUT.pkl

OUT holds the trunk of the online encoder (and the feature pyramid, where the checkpoint has one) under detectron2's
names, and beside them what a config must say: arch, pixel format, mean, std, stride. train_voc.py and train_coco.py
compare it with theirs. Needs neither detectron2 nor an installation of this project.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downstream.conversion.convert import convert, described, module_of
from downstream.conversion.verify import verify
from downstream.conversion.weights_file import write_weights
from pixpro.checkpoints.convert import read_checkpoint
from pixpro.errors import UserError, one_line_errors


@one_line_errors
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of train.py or of another project")
    parser.add_argument("out", type=Path, help="file to write; its name ends in .pkl")
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="rebuild the trunk from what was written and compare its features with the checkpoint's",
    )
    arguments = parser.parse_args()
    run(arguments.checkpoint, arguments.out, check=arguments.verify)
    return 0


def run(source: Path, out: Path, *, check: bool) -> None:
    """Convert source into out; out appears only when everything went well."""
    if out.suffix != ".pkl":
        raise UserError(f"detectron2 reads converted weights from files ending in .pkl; got {out.name!r}")
    if not out.parent.is_dir():
        raise UserError(f"no folder {out.parent} to write {out.name} into; create it first")
    checkpoint = read_checkpoint(source)
    conversion = convert(checkpoint.state_dict, checkpoint.arch)
    facts = described(conversion, checkpoint.arch) | {
        "writer": checkpoint.writer,
        "method": checkpoint.method,
        "epoch": checkpoint.epoch,
        "source": source.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=out.parent) as folder:
        draft = Path(folder) / out.name
        write_weights(draft, conversion.weights, facts)
        differences = verify(draft, conversion, checkpoint.arch) if check else {}
        os.replace(draft, out)

    pyramid = " and feature pyramid" if conversion.neck else ""
    print(f"converted the {checkpoint.arch} trunk{pyramid} of {checkpoint.writer}: {len(conversion.weights)} tensors")
    left_out = conversion.left_out + Counter(map(module_of, checkpoint.left))
    if left_out:
        print("left out: " + ", ".join(f"{name} ({count})" for name, count in sorted(left_out.items())))
    if check:
        figures = ", ".join(f"{name} {difference:.0e}" for name, difference in differences.items())
        print(f"verified, relative difference to the checkpoint: {figures}")
    print(f"wrote {out} ({out.stat().st_size / 1e6:.0f} MB): RGB, 0..255, stride in the 3x3")


if __name__ == "__main__":
    sys.exit(main())
