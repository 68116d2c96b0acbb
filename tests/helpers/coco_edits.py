"""Edits of annotations in COCO's format, as other tools and people leave them."""

import json
from collections.abc import Callable
from pathlib import Path


def change(coco: Path, edit: Callable[[dict], object], split: str = "val2017") -> dict:
    """Edit the JSON file of a split; its content as it was."""
    path = coco / "annotations" / f"instances_{split}.json"
    before = json.loads(path.read_text())
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return before


def without(key: str) -> Callable[[dict], None]:
    def edit(content: dict) -> None:
        for item in content["annotations"]:
            del item[key]

    return edit
