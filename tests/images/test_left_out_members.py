"""What archives hold beside images that are read: each member is read, or counted with its reason."""

import os
import tarfile
import zipfile
from io import BytesIO

import pytest

from pixpro.images import open_images
from tests.helpers.image_sources import JPEG, found
from tests.helpers.left_out_files import add, ten, told


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))


# Members of tar files


def test_hard_links_in_a_tar_are_the_images_that_they_name(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "./a.jpg", data=b"first")
        add(archive, "b.jpg", tarfile.LNKTYPE, "./a.jpg")
        add(archive, "c.jpg", tarfile.LNKTYPE, "b.jpg")
        add(archive, "a.jpg", data=b"second")
        add(archive, "d.jpg", tarfile.LNKTYPE, "a.jpg")
        add(archive, "e.jpg", tarfile.LNKTYPE, "notes.txt")
        add(archive, "f.txt", tarfile.LNKTYPE, "a.jpg")
    source = open_images([tmp_path / "x.tar"])
    assert [source.read(i) for i in range(len(source))] == [b"first", b"first", b"first", b"second", b"second"]
    assert "1 hard link(s) in an archive (to a member that is no image, or not there" in str(source.left_out)
    assert "1 .txt" in str(source.left_out) and len(source.left_out) == 2


def test_hard_links_as_tar_writes_them(tmp_path):
    root = ten(tmp_path / "data")
    os.link(root / "a/0.jpg", root / "b/again.jpg")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(root, "data")
    source = open_images([tmp_path / "x.tar"])
    assert len(source) == 11 and {source.read(i) for i in range(11)} == {JPEG} and not source.left_out


def test_members_that_are_no_files_are_counted(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "a.jpg", data=JPEG)
        add(archive, "folder.jpg", tarfile.DIRTYPE)
        add(archive, "b.jpg", tarfile.SYMTYPE, "a.jpg")
        for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE, b"V", b"M"):
            add(archive, f"{kind.decode()}.jpg", kind)
        for name in (".hidden.jpg", "__MACOSX/a.jpg", ".git/x.jpg", "inner.tar", "inner.zip", "notes.txt"):
            add(archive, name, data=b"data")
    left = open_images([tmp_path / "x.tar"]).left_out
    assert {kind.name: count for kind, (count, _) in left.found.items()} == {
        "symbolic link(s) in an archive": 1,
        "pipe(s), device(s) or unknown members": 4,
        "hidden": 3,
        "archive(s) inside an archive": 2,
        ".txt": 1,
    }


def test_sparse_members_are_named(tmp_path):
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.jpg", "GNU.sparse.realsize": "1024"}
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, "a.jpg", data=JPEG)
        info = tarfile.TarInfo("GNUSparseFile.0/s.jpg")
        info.pax_headers, info.size = pax, 1024
        archive.addfile(info, BytesIO(b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512))
    assert len(found(tmp_path / "x.tar")) == 1
    assert "1 sparse member(s) (repack the archive without --sparse" in told(tmp_path / "x.tar")


# Members of zip files


def test_zip_members_that_are_not_read_are_named_by_their_compression(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.jpg", JPEG)
        archive.writestr("b.jpg", JPEG * 9, zipfile.ZIP_BZIP2)
        archive.writestr("c.jpg", JPEG * 9, zipfile.ZIP_LZMA)
        archive.writestr("notes.txt", b"", zipfile.ZIP_LZMA)
        archive.writestr("folder.jpg/", b"")
        archive.writestr("secret.jpg", JPEG)
        archive.writestr("other.jpg", JPEG)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    for name, offset, value in ((b"secret.jpg", 8, 1), (b"other.jpg", 10, 9)):  # flags; method
        entry = data.rindex(b"PK\x01\x02", 0, data.rindex(name))
        data[entry + offset] = value
    (tmp_path / "x.zip").write_bytes(data)
    source = open_images([tmp_path / "x.zip"])
    assert len(source) == 1 and source.read(0) == JPEG
    for words in (
        "1 member(s) compressed by bzip2 (repack",
        "LZMA (",
        "Deflate64 (",
        "1 encrypted member(s) (",
        "1 .txt",
    ):
        assert words in str(source.left_out)
    assert len(source.left_out) == 5
