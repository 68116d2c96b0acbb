"""The built-in sample scenes as a folder of files, so that everything runs with no download."""

import json
import os
import shutil
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pixpro.errors import UserError
from pixpro.images.listing import cache_folder
from pixpro.scenes.drawing import CLASSES
from pixpro.scenes.files import scene_files

__all__ = ["CLASSES", "sample_scenes", "write_scenes"]

VERSION = 1  # raise it when the drawing changes: cached scenes of another version are not used
MANIFEST = "scenes.json"


def sample_scenes(count: int = 400, seed: int = 0, held_out: int = 80) -> Path:
    """The folder of these scenes in the cache (`cache_folder`), drawn on first use (`write_scenes`)."""
    return write_scenes(cache_folder() / f"scenes-v{VERSION}-{count}-{held_out}-{seed}", count, seed, held_out)


def write_scenes(folder: str | Path, count: int, seed: int = 0, held_out: int | None = None) -> Path:
    """`folder` with `count` scenes in VOC's layout, the last `held_out` of them (default a fifth) for tests.

    JPEGImages, Annotations, SegmentationClass, SegmentationObject and ImageSets/{Main,Segmentation}; train,
    val and trainval hold the first scenes, test the held-out ones. Moreover train/ and held_out/ with the
    JPEG files of trainval and test alone, for training without labels. The same numbers give the same
    bytes. A complete folder is used as it is; damaged or missing files in it are written anew, nothing else
    is touched.
    """
    folder = Path(folder)
    held_out = max(2, count // 5) if held_out is None else held_out
    if held_out < 2 or count - held_out < 4:
        raise UserError(f"{count} scenes with {held_out} held out: at least 2 held out and 4 others are needed")
    wanted = {"version": VERSION, "count": count, "seed": seed, "held_out": held_out}
    manifest = _read_manifest(folder, wanted)
    if manifest is not None and not _damaged(folder, manifest):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            drawn = Path(temporary, "scenes")
            manifest = _draw(drawn, wanted)
            _publish(drawn, folder, manifest)
    except OSError as error:
        raise UserError(
            f"cannot write the sample scenes: {error}; set PIXPRO_CACHE to a folder you may write to"
        ) from error
    return folder


def _read_manifest(folder: Path, wanted: dict) -> dict | None:
    """The files the folder should have and their checksums; None when it has to be drawn."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} exists and does not hold sample scenes; choose a new folder")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        found, files = manifest["scenes"], manifest["files"]
        assert isinstance(files, dict)
    except (ValueError, KeyError, TypeError, AssertionError):
        return None
    if found != wanted:
        raise UserError(f"{folder} holds other scenes ({found}, wanted {wanted}); choose a new folder")
    return files


def _damaged(folder: Path, files: dict[str, int]) -> list[str]:
    return [name for name, checksum in files.items() if _checksum(folder / name) != checksum]


def _checksum(path: Path) -> int | None:
    try:
        return zlib.crc32(path.read_bytes())
    except OSError:
        return None


def _draw(folder: Path, wanted: dict) -> dict[str, int]:
    count, seed, kept = wanted["count"], wanted["seed"], wanted["count"] - wanted["held_out"]
    names = [f"{number:06d}" for number in range(1, count + 1)]
    for part in ("Annotations", "JPEGImages", "SegmentationClass", "SegmentationObject", "train", "held_out"):
        (folder / part).mkdir(parents=True)
    splits = {"trainval": names[:kept], "test": names[kept:], "val": names[:kept][::2][1::2]}
    splits["train"] = [name for name in splits["trainval"] if name not in set(splits["val"])]
    splits["val"] = splits["val"] if len(splits["val"]) > 1 else splits["train"][-2:]
    splits["train"] = [name for name in splits["trainval"] if name not in set(splits["val"])]

    def write(index: int) -> None:
        name = names[index]
        for path, content in scene_files(seed, index, name).items():
            (folder / path).write_bytes(content)
        alone = folder / ("train" if index < kept else "held_out") / f"{name}.jpg"
        _link(folder / "JPEGImages" / f"{name}.jpg", alone)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(write, range(count)))
    for task in ("Main", "Segmentation"):
        (folder / "ImageSets" / task).mkdir(parents=True)
        for split, members in splits.items():
            (folder / "ImageSets" / task / f"{split}.txt").write_text("\n".join(members) + "\n")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    checksums = {path.relative_to(folder).as_posix(): zlib.crc32(path.read_bytes()) for path in files}
    (folder / MANIFEST).write_text(json.dumps({"scenes": wanted, "files": checksums}, indent=0))
    return checksums


def _link(existing: Path, path: Path) -> None:
    try:
        os.link(existing, path)
    except OSError:
        shutil.copyfile(existing, path)


def _publish(drawn: Path, folder: Path, files: dict[str, int]) -> None:
    """Move the finished folder into place at once, or, where one exists, replace what differs in it."""
    try:
        os.rename(drawn, folder)
    except OSError:
        if not folder.is_dir():
            raise
        for name in [*_damaged(folder, files), MANIFEST]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(drawn / name, folder / name)
