"""Image files and tar shards to be found by the sources of images, and the names under which they are found."""

import tarfile
from io import BytesIO
from pathlib import Path

from pixpro.images import open_images
from tests.helpers import pictures

JPEG = pictures.encoded(pictures.texture(20, 30), "JPEG")


def put(path: Path, data: bytes = JPEG) -> Path:
    """The path, with a file there and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def found(*roots: Path) -> list[str]:
    """The names of all images in the sources."""
    source = open_images(roots)
    return [source.name(i) for i in range(len(source))]


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    """The path, with an archive there that holds these files."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    return path
