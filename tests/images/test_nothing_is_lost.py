"""Folders and archives made at random: what is read and what is named add up to what is there."""

import os
import shutil
import tarfile
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixpro.errors import UserError
from pixpro.images import open_images
from pixpro.images.kinds import EXTENSIONS
from pixpro.plan.check import scan
from tests.helpers.image_sources import JPEG, put

HTML = b"<html>404 not found</html>"
FOLDERS = ["", "a", "a/b", "c", "c/x.jpg", ".hidden", ".hidden/deep", "c/__MACOSX"]
NAMES = [
    *("1.jpg", "2.JPG", "3.png", "4.jpeg", "5.tif", "9.photo.jpg", "photo", "6.txt", "7.jp2", "8.heif_", "x.tar.gz"),
    *(".x.jpg", "._1.jpg", ".DS_Store", "Thumbs.db", "z", "1.jpg.part"),
]
MEMBERS = ["m/1.jpg", "2.JPG", "./3.png", "m/4.txt", "m/.5.jpg", "__MACOSX/6.jpg", "7", "8.jp2", "9.tar", ".git/1.jpg"]

files = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES))
things = st.one_of(
    st.tuples(st.just("file"), files, st.sampled_from([JPEG, JPEG[:200], HTML, b""])),
    st.tuples(st.just("pipe"), files, st.none()),
    st.tuples(st.just("hard link"), files, files),
    st.tuples(
        st.just("link"), files, st.sampled_from([*FOLDERS, "..", "../..", "/nowhere", "a/1.jpg", "itself", "out"])
    ),
)
members = st.lists(
    st.tuples(
        st.sampled_from(MEMBERS),
        st.sampled_from(["file", "bad", "symbolic", "hard", "folder", "pipe", "packed"]),
        st.sampled_from(MEMBERS),
    ),
    max_size=8,
)
archives = st.lists(
    st.tuples(
        st.sampled_from(["x", "y", ".z"]), st.sampled_from([".tar", ".zip", ".TAR"]), st.lists(members, max_size=3)
    ),
    max_size=3,
)


def make(root: Path, kind: str, place: tuple[str, str], more: object) -> None:
    """One thing in the folder, unless something of this name is there already."""
    path = root / place[0] / place[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        return
    if kind == "file":
        path.write_bytes(more)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "hard link":
        source = root / more[0] / more[1]
        if source.is_file():
            os.link(source, path)
    elif more == "itself":
        path.symlink_to(path.name)
    elif more == "out":
        put(root.parent / "outside/1.jpg")
        put(root.parent / "outside/deep/2.txt")
        path.symlink_to(root.parent / "outside")
    else:
        path.symlink_to(more if more.startswith((".", "/")) and more[1:2] != "h" else root / more)


def make_archive(path: Path, ending: str, parts: list[list[tuple]]) -> None:
    """A zip file of the first part, or a tar file of all of them joined."""
    whole, number = b"", 0
    for part in parts[: 1 if ending == ".zip" else None] or [[]]:
        buffer = BytesIO()
        kind = zipfile.ZipFile if ending == ".zip" else tarfile.open
        with kind(buffer, mode="w") if kind is zipfile.ZipFile else kind(fileobj=buffer, mode="w") as archive:
            for name, what, other in part:
                number += 1
                data = (HTML if what == "bad" else JPEG) + b"\0" * number  # a size of its own
                if kind is zipfile.ZipFile:
                    method = zipfile.ZIP_LZMA if what == "packed" else zipfile.ZIP_DEFLATED
                    info = zipfile.ZipInfo(name + ("/" if what == "folder" else ""))
                    info.compress_type = method
                    info.external_attr = {"symbolic": 0o120777, "pipe": 0o010644}.get(what, 0o100644) << 16
                    archive.writestr(info, b"" if what == "folder" else data)
                    continue
                info = tarfile.TarInfo(name)
                types = {"symbolic": b"2", "hard": b"1", "folder": b"5", "pipe": b"6"}
                info.type, info.linkname = types.get(what, b"0"), other
                info.size = len(data) if info.isreg() else 0
                archive.addfile(info, BytesIO(data))
        whole += buffer.getvalue()
    path.write_bytes(whole)


def hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def is_folder(path: str, in_hidden: bool) -> bool:
    """Whether an entry counts as a folder: hidden links do not."""
    try:
        return os.path.isdir(path) and not ((in_hidden or hidden(os.path.basename(path))) and os.path.islink(path))
    except OSError:
        return False


def folders_below(root: str) -> tuple[set[str], set[str]]:
    """Real paths of all folders that can be reached from root: openly, and only through hidden names."""
    above = {str(parent) for parent in Path(root).parents}
    found: tuple[set[str], set[str]] = ({root}, set())
    for in_hidden in (False, True):
        waiting = list(found[0])
        while waiting:
            folder = waiting.pop()
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                real = os.path.realpath(path)
                now_hidden = folder in found[1] or hidden(name)
                if now_hidden == in_hidden and is_folder(path, now_hidden) and real not in above | found[0] | found[1]:
                    found[in_hidden].add(real)
                    waiting.append(real)
    return found


def members_of(path: str) -> tuple[int, bool]:
    """How many members that are no folders an archive has, and whether one of them is an image that is read."""
    if path.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        plain = [i.filename for i in infos if i.external_attr >> 28 in (0, 8) and i.compress_type in (0, 8)]
        return len(infos), any(is_read(name) for name in plain)
    with tarfile.open(path, ignore_zeros=True) as archive:
        infos = [info for info in archive.getmembers() if not info.isdir()]
    return len(infos), any(is_read(info.name) for info in infos if info.isreg())


def is_read(name: str) -> bool:
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return os.fsencode(name.lower()).endswith(EXTENSIONS) and not any(hidden(part) for part in parts)


def what_is_there(root: str) -> tuple[int, set[str]]:
    """How many things lie below root, and the real folders' paths of those files that are images by their names."""
    visible, concealed = folders_below(root)
    count, images = 1 - len(visible | concealed), set()
    for folder in visible | concealed:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            count += 1
            if folder in concealed or hidden(name) or is_folder(path, False):
                continue
            if is_read(name):
                images.add(path)
            elif name.lower().endswith((".tar", ".zip")):
                there, readable = members_of(path)
                count += there - readable  # an archive without an image is named itself
    return count, images


def decodes(data: bytes) -> bool:
    try:
        Image.open(BytesIO(data)).convert("RGB")
    except Exception:
        return False
    return True


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=150, deadline=None)
@given(st.lists(things, max_size=14), archives)
def test_what_is_read_and_what_is_named_is_all_that_is_there(made, packed):
    top = tempfile.mkdtemp()
    root = Path(os.path.realpath(top), "data")
    root.mkdir()
    try:
        for thing in made:
            make(root, *thing)
        for name, ending, parts in packed:
            make_archive(root / (name + ending), ending, parts)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PIXPRO_CACHE", f"{top}/cache")
            check(root)
    finally:
        shutil.rmtree(top)


def check(root: Path) -> None:
    there, images = what_is_there(str(root))
    try:
        source = open_images([root])
    except UserError as error:
        assert "no images found" in str(error) and not images
        assert (f"left out {there}: " in str(error)) == (there > 0)
        return
    assert len(source) + len(source.left_out) == there
    own = [source.name(i) for i in range(len(source.stores[0]))] if images else []
    real = [os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name)) for name in own]
    assert len(real) == len(set(real)) and set(real) == images, "each image file once"
    report = scan(source)
    assert len(report.heights) + len(report.bad) == len(source)
    good = [name for name in own if os.path.isfile(name) and decodes(Path(name).read_bytes())]
    assert not set(good) & set(report.bad) and set(own) - set(good) <= set(report.bad)
