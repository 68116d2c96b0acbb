"""What a file's name says: an image that is read, an archive, or something that is left out, and why."""

from typing import NamedTuple

from pixpro.images.decoding import FORMATS

EXTENSIONS = tuple(b".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .ppm .pgm .pbm".split())
if "AVIF" in FORMATS:
    EXTENSIONS += (b".avif",)
if "HEIF" in FORMATS:
    EXTENSIONS += (b".heic", b".heif", b".hif")
ARCHIVES = (b".tar", b".zip")
COMPRESSED = (b".tar.gz", b".tgz", b".tar.bz2", b".tbz2", b".tar.xz", b".txz", b".tar.zst", b".tar.lz4")
MAX_BYTES = 256 * 2**20  # of one encoded file


class Kind(NamedTuple):
    """A kind of things that are left out."""

    name: str
    why: str = ""  # nothing for files that are plainly no images
    missed: bool = False  # whether these may be images that somebody misses


HIDDEN = Kind("hidden")
# Endings of images and archives that are not read, and what to do about it.
ADVICE = {
    **dict.fromkeys((b".heic", b".heif", b".hif"), "to read them, `pip install pillow-heif`"),
    b".avif": "to read them, `pip install --upgrade pillow` (11.3 or later)",
    **dict.fromkeys(COMPRESSED, "compressed: unpack them, or repack them as .tar"),
    **dict.fromkeys(
        b".jp2 .j2k .jpx .jxl .tga .ico .psd .exr .hdr .svg .eps .pcx .dds .dng .cr2 .cr3 .nef .arw .orf .rw2".split(),
        "a format that is not read: convert them",
    ),
    **dict.fromkeys(
        b".7z .rar .gz .bz2 .xz .zst .parquet .tfrecord .lmdb .mdb .h5 .hdf5 .npz .npy .dcm .nii".split(),
        "may hold images that are not read: unpack or convert them",
    ),
}


def is_hidden(name: bytes) -> bool:
    """Whether a path has a part that starts with a dot (macOS leaves `._x.jpg`), or lies in macOS's own folder."""
    if name[:1] != b"." and b"/." not in name and b"__MACOSX" not in name:
        return False
    return any(part[:1] == b"." and part not in (b".", b"..") or part == b"__MACOSX" for part in name.split(b"/"))


def is_image(name: bytes) -> bool:
    """Whether a path says image; hidden ones do not count."""
    return name.lower().endswith(EXTENSIONS) and not is_hidden(name)


def is_archive(name: bytes) -> bool:
    """Whether a path says archive with random access."""
    return name.lower().endswith(ARCHIVES) and not is_hidden(name)


def kind_of(name: bytes) -> Kind:
    """What a file is, by its path, that is not read."""
    if is_hidden(name):
        return HIDDEN
    base = name.rsplit(b"/", 1)[-1].lower()
    ending = next((end for end in COMPRESSED if base.endswith(end)), None)
    if ending is None:
        stem, dot, last = base.rpartition(b".")
        ending = dot + last if stem else b""
    why = ADVICE.get(ending, "")
    return Kind(ending.decode(errors="backslashreplace") or "without an ending", why, missed=bool(why))
