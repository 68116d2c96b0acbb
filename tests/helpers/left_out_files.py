"""Folders and archives of small images, and what is said of the files that are left out."""

import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

from pixpro.images import open_images
from tests.helpers.image_sources import put


def told(*roots: Path) -> str:
    return str(open_images(roots).left_out)


def ten(root: Path) -> Path:
    """Ten images in two folders."""
    for i in range(10):
        put(root / f"{'ab'[i % 2]}/{i}.jpg")
    return root


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def add(archive: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    archive.addfile(info, BytesIO(data))
