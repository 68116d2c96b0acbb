"""Tar shards and zip files: their images, the same as from a folder, and nothing else that is in them."""

import stat
import tarfile
import zipfile
from io import BytesIO

import numpy as np
import pytest

from pixpro.errors import UserError
from pixpro.images import decode, open_images
from tests.helpers import pictures
from tests.helpers.image_sources import JPEG, found, make_tar, put

SHARD = {"000.jpg": JPEG, "000.cls": b"3", "000.json": b"{}", "n01/001.png": b"png bytes", "001.txt": b"text"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))


def test_a_webdataset_shard_gives_its_images(tmp_path):
    shard = make_tar(tmp_path / "shard.tar", SHARD)
    assert found(shard) == [f"{shard}/000.jpg", f"{shard}/n01/001.png"]
    source = open_images([shard])
    assert source.read(1) == b"png bytes" and source.read(0) == JPEG


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_in_every_form_of_tar(tmp_path, form):
    name = "/".join(["folder" * 10] * 3) + "/1.jpg"
    with tarfile.open(tmp_path / "x.tar", "w", format=form) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(JPEG)
        archive.addfile(info, BytesIO(JPEG))
    source = open_images([tmp_path / "x.tar"])
    assert source.name(0).endswith(name) and source.read(0) == JPEG


def test_a_folder_of_shards_is_read_in_order(tmp_path):
    for k in (2, 0, 1):
        make_tar(tmp_path / f"{k}.tar", {f"{k}{i}.jpg": b"%d%d" % (k, i) for i in range(2)})
    source = open_images([tmp_path])
    assert [source.read(i) for i in range(6)] == [b"00", b"01", b"10", b"11", b"20", b"21"]


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    from pixpro.images import archives

    monkeypatch.setattr(archives, "MAX_OPEN", 2)
    for k in range(5):
        make_tar(tmp_path / f"{k}.tar", {"1.jpg": b"%d" % k})
    source = open_images([tmp_path])
    assert [source.read(i % 5) for i in range(12)] == [b"%d" % (i % 5) for i in range(12)]


def test_tar_members_that_are_no_regular_files_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name in ("../../outside.jpg", "/absolute.jpg"):  # a name only: nothing is ever extracted to it
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, BytesIO(b"data"))
    source = open_images([tmp_path / "x.tar"])
    assert [source.read(i) for i in range(len(source))] == [b"data", b"data"]
    assert all(source.name(i).startswith(str(tmp_path / "x.tar/")) for i in range(2))


def test_zip_files_stored_and_deflated(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/1.jpg", JPEG, zipfile.ZIP_STORED)
        archive.writestr("a/2.jpg", JPEG * 3, zipfile.ZIP_DEFLATED)
        archive.writestr("notes.txt", "text")
        archive.writestr("__MACOSX/a/1.jpg", "resource fork")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    source = open_images([tmp_path / "x.zip"])
    assert [source.read(i) for i in range(len(source))] == [JPEG, JPEG * 3]


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_an_archive_without_images_says_so(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    if suffix == ".tar":
        make_tar(path, {"notes.txt": b"text"})
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("notes.txt", "text")
    with pytest.raises(UserError, match="no images found"):
        open_images([path])


def test_compressed_tars_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(UserError, match="unpack"):
        open_images([put(tmp_path / "x.tar.gz")])


def test_the_same_images_from_a_folder_a_tar_and_a_zip(tmp_path):
    root = pictures.folder(tmp_path / "data", 4)
    names = [f"{i:03}.jpg" for i in range(4)]
    make_tar(tmp_path / "x.tar", {name: (root / name).read_bytes() for name in names})
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in names:
            archive.write(root / name, name)
    source = open_images([root, tmp_path / "x.tar", tmp_path / "x.zip"])
    pixels = [decode(source.read(i)).numpy() for i in range(12)]
    for i in range(4):
        assert np.array_equal(pixels[i], pixels[4 + i]) and np.array_equal(pixels[i], pixels[8 + i])
