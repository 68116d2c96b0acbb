"""Sample scenes in the folders that detectron2's data sets are read from."""

from pathlib import Path

from pixpro.scenes import write_scenes
from pixpro.scenes.coco import write_coco


def write_detection_data(root: Path) -> Path:
    """The folder, as DETECTRON2_DATASETS wants it, filled with eight scenes as VOC2007, VOC2012 and coco."""
    scenes = write_scenes(root / "VOC2007", 8)
    (root / "VOC2012").symlink_to(scenes)
    write_coco(scenes, root / "coco")
    return root
