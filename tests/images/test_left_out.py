"""Every file below a root is read, or counted with its reason; nothing is left out in silence."""

import os
import re
import socket
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from pixpro.errors import UserError
from pixpro.images import listing, open_images
from pixpro.images.kinds import kind_of
from tests.helpers.image_sources import JPEG, found, make_tar, put

WHERE = "; `python -m pixpro check` says where"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))


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


# Links


@pytest.mark.parametrize("name", ["loop", "a/loop", "b/zz", "a/0"])
def test_a_link_to_itself_costs_nothing_but_itself(tmp_path, name):
    root = ten(tmp_path / "data")
    (root / name).symlink_to(Path(name).name)
    source = open_images([root])
    assert len(source) == 10
    assert str(source.left_out) == f"warning: left out 1: 1 link(s) (Too many levels of symbolic links){WHERE}"
    assert source.left_out.lines() == [f"1 link(s) (Too many levels of symbolic links; first: {root}/{name})"]


def test_links_that_lead_round_over_two_folders_end(tmp_path):
    root = ten(tmp_path / "data")
    (root / "a/to_b").symlink_to(root / "b")
    (root / "b/to_a").symlink_to(root / "a")
    source = open_images([root])
    assert len({os.path.realpath(source.name(i)) for i in range(len(source))}) == len(source) == 10
    assert source.left_out.missed == 0 and "2 folder(s) (read already under another name" in str(source.left_out)


@pytest.mark.parametrize("up", ["..", "../..", "/"])
def test_a_link_to_a_folder_above_is_not_followed(tmp_path, up):
    put(tmp_path / "held_out/secret.jpg")
    root = ten(tmp_path / "data")
    (root / "up").symlink_to(up)
    source = open_images([root])
    assert len(source) == 10 and "1 link(s) (to a folder above" in str(source.left_out)


def test_links_to_files_and_folders_outside_are_followed(tmp_path):
    ten(tmp_path / "elsewhere")
    root = tmp_path / "data"
    put(root / "0.jpg")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "file.jpg").symlink_to(tmp_path / "elsewhere/a/0.jpg")
    source = open_images([root])
    assert len(source) == 12 and not source.left_out


def test_a_link_to_a_folder_that_is_gone_is_a_loss_that_is_named(tmp_path):
    root = ten(tmp_path / "data")
    (root / "train").symlink_to("/nowhere/train")
    assert told(root) == f"warning: left out 1: 1 link(s) (that lead nowhere){WHERE}"


def test_a_folder_that_comes_back_behind_its_link_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "RACY_NS", -(10**12))
    root = ten(tmp_path / "data")
    (root / "train").symlink_to(tmp_path / "mount/train")
    assert len(found(root)) == len(found(root)) == 10
    put(tmp_path / "mount/train/1.jpg")
    assert len(found(root)) == 11


def test_a_hidden_link_hides_nothing_but_itself(tmp_path):
    root = ten(tmp_path / "data")
    (root / ".latest").symlink_to(root / "a")
    (root / ".self").symlink_to(root)
    assert len(found(root)) == 10 and told(root) == "left out 2: 2 hidden"


# Files


def test_foreign_files_are_counted_by_their_endings(tmp_path):
    root = ten(tmp_path / "data")
    names = ["a/1.txt", "a/2.TXT", "labels.json", "README", "b/Thumbs.db", ".DS_Store", "a/._0.jpg", "x.jpg.part"]
    for name in [*names, "__MACOSX/a/0.jpg", ".git/objects/1.jpg", ".git/HEAD"]:
        put(root / name)
    assert len(found(root)) == 10
    assert told(root) == "left out 11: 5 hidden, 2 .txt, 1 .db, 1 .json, 1 .part, 1 without an ending"


def test_images_of_formats_that_are_not_read_are_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("pixpro.images.folders.EXTENSIONS", (b".jpg",))
    root = ten(tmp_path / "data")
    for i in range(8):
        put(root / f"{i}.HEIC")
    for name in ("x.avif", "x.jp2", "x.nef", "x.tar.gz", "x.7z", "x.parquet"):
        put(root / name)
    text = told(root)
    assert text.startswith("warning: left out 14: 8 .heic (to read them, `pip install pillow-heif`), ")
    for words in (".avif (to read them, `pip install --upgrade pillow`", ".tar.gz (compressed: unpack", ".jp2", ".7z"):
        assert words in text


def test_upper_case_and_double_endings(tmp_path):
    root = tmp_path / "data"
    for name in ("a.JPG", "b.photo.Jpeg", "c.tar.jpg", "d..png", "e.TIFF"):
        put(root / name)
    (root / "folder.jpg").mkdir()
    put(root / "folder.jpg/f.jpg")
    assert len(found(root)) == 6 and told(root) == ""


def test_pipes_sockets_and_empty_files_with_an_image_s_name_are_bad_images_not_missing_ones(tmp_path):
    root = ten(tmp_path / "data")
    os.mkfifo(root / "pipe.jpg")
    os.mkfifo(root / "pipe")
    put(root / "empty.jpg", b"")
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(root)  # the path of a socket may have 100 bytes
    try:
        listener.bind("socket.png")
    finally:
        os.chdir(here)
        listener.close()
    assert len(found(root)) == 13 and told(root) == "left out 1: 1 without an ending"


def test_a_folder_that_may_not_be_read_is_named_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "RACY_NS", -(10**12))
    root, scandir = ten(tmp_path / "data"), os.scandir

    def closed(path):
        if os.fsdecode(path).rstrip("/").endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", closed)
        source = open_images([root])
    assert len(source) == 5
    assert source.left_out.lines() == [f"1 folder(s) (Permission denied; first: {root}/b/)"]
    assert len(open_images([root])) == 10, "the short list was not kept"


def test_what_was_left_out_is_remembered_with_the_list(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "RACY_NS", -(10**12))
    root = ten(tmp_path / "data")
    put(root / "caf\udce9.txt")
    make_tar(root / "x.tar", {"1.jpg": JPEG, "2.txt": b"", "3.heic?": b""})
    first, scans = told(root), []
    monkeypatch.setattr("pixpro.images.folders.walk", lambda *_: scans.append(1))
    monkeypatch.setattr("pixpro.images.archives.tar_members", lambda *_: scans.append(1))
    assert told(root) == first == "left out 3: 2 .txt, 1 .heic?" and not scans


def test_the_list_is_made_anew_when_more_formats_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "RACY_NS", -(10**12))
    root = ten(tmp_path / "data")
    put(root / "x.heic")
    for module in ("folders", "listing"):
        monkeypatch.setattr(f"pixpro.images.{module}.EXTENSIONS", (b".jpg",))
    assert len(found(root)) == 10
    for module in ("folders", "listing"):
        monkeypatch.setattr(f"pixpro.images.{module}.EXTENSIONS", (b".jpg", b".heic"))
    assert len(found(root)) == 11


def test_an_error_for_a_root_without_images_says_what_is_there(tmp_path):
    put(tmp_path / "data/x.npz")
    put(tmp_path / "data/y.txt")
    with pytest.raises(UserError, match=r"no images found .*; left out 2: 1 \.npz \(may hold images .*, 1 \.txt; "):
        open_images([tmp_path / "data"])


# Archives in folders


def test_archives_beside_images_are_read_too_at_any_depth(tmp_path):
    root = tmp_path / "data"
    put(root / "preview.jpg")
    for k in range(2):
        make_tar(root / f"shard{k}.tar", {f"{k}{i}.jpg": JPEG for i in range(8)})
    make_zip(root / "deep/er/x.zip", {"z.jpg": JPEG})
    assert found(root)[0] == f"{root}/preview.jpg" and found(root)[-1] == f"{root}/deep/er/x.zip/z.jpg"
    assert len(found(root)) == 18 and told(root) == ""


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize("beside", [".", "photos"])
def test_an_archive_that_lies_unpacked_beside_itself_is_not_read_twice(tmp_path, make, beside):
    root = tmp_path / "data"
    members = {f"train/{i}.jpg": JPEG + b"%d" % i for i in range(50)}
    for name, data in members.items():
        put(root / beside / name, data)
    make(root / "photos.tar" if make is make_tar else root / "photos.zip", members)
    assert len(found(root)) == 50 and "1 archive(s) (their images lie unpacked beside them" in told(root)
    put(root / beside / "train/49.jpg", b"another")
    (root / beside / "train/0.jpg").unlink()
    assert len(found(root)) == 99


def test_an_archive_without_images_among_images_is_named(tmp_path):
    root = ten(tmp_path / "data")
    make_tar(root / "annotations.tar", {"1.xml": b"", "2.xml": b""})
    assert told(root).startswith("warning: left out 3: 1 archive(s) (without an image that is read), 2 .xml")


def test_hidden_archives_are_not_opened(tmp_path):
    root = ten(tmp_path / "data")
    put(root / "._shard.tar", b"macOS")
    assert told(root) == "left out 1: 1 hidden"


@pytest.mark.parametrize("name", ["x.tar", "x.zip"])
def test_a_damaged_archive_among_images_stops_with_one_line(tmp_path, name):
    root = ten(tmp_path / "data")
    put(root / name, b"junk" * 500)
    with pytest.raises(UserError, match=name) as error:
        open_images([root])
    assert "\n" not in str(error.value)


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


@pytest.mark.parametrize("padding", [0, 512, 10_240, 5_000_192])
def test_tar_files_joined_by_cat_are_read_to_the_end(tmp_path, padding):
    parts = [make_tar(tmp_path / f"{k}.tar", {f"{k}{i}.jpg": b"%d%d" % (k, i) for i in range(5)}) for k in range(3)]
    whole = put(tmp_path / "all/x.tar", bytes(padding).join(part.read_bytes() for part in parts))
    source = open_images([whole])
    assert [source.read(i) for i in range(len(source))] == [b"%d%d" % (k, i) for k in range(3) for i in range(5)]
    assert not source.left_out


def test_what_follows_a_tar_and_is_none_stops_with_one_line(tmp_path):
    shard = make_tar(tmp_path / "x.tar", {"1.jpg": JPEG})
    with open(shard, "ab") as file:
        file.write(b"appended by a tool" * 100)
    with pytest.raises(UserError, match="something that is no tar file follows its end, at byte 10240"):
        open_images([shard])


def test_a_tar_that_was_cut_between_two_members_says_so(tmp_path):
    shard = make_tar(tmp_path / "x.tar", {f"{i}.jpg": b"x" * 512 for i in range(4)})
    shard.write_bytes(shard.read_bytes()[:2048])
    source = open_images([shard])
    assert len(source) == 2 and "1 archive(s) without a mark of their end (they may be cut short" in str(
        source.left_out
    )


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_compressed_archive_is_refused_whatever_its_name(tmp_path, mode):
    with tarfile.open(tmp_path / "x.tar", f"w:{mode}") as archive:
        add(archive, "a.jpg", data=JPEG)
    with pytest.raises(UserError, match="compressed; unpack it or repack it as .tar"):
        open_images([tmp_path / "x.tar"])
    (tmp_path / "x.tar").rename(tmp_path / f"x.tar.{mode}")
    with pytest.raises(UserError, match="compressed archive cannot be read in random order; unpack it"):
        open_images([tmp_path / f"x.tar.{mode}"])


def test_archives_with_each_other_s_ending_are_read(tmp_path):
    make_tar(tmp_path / "x.tar", {"1.jpg": b"tar"}).rename(tmp_path / "tar.zip")
    make_zip(tmp_path / "x.zip", {"1.jpg": b"zip"}).rename(tmp_path / "zip.tar")
    source = open_images([tmp_path / "tar.zip", tmp_path / "zip.tar"])
    assert [source.read(i) for i in range(2)] == [b"tar", b"zip"]


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


def test_joined_zip_files_are_refused(tmp_path):
    parts = [make_zip(tmp_path / f"{k}.zip", {f"{k}.jpg": JPEG}) for k in range(2)]
    put(tmp_path / "x.zip", b"".join(part.read_bytes() for part in parts))
    with pytest.raises(UserError, match="joined by `cat`"):
        open_images([tmp_path / "x.zip"])


def test_a_program_before_a_zip_is_no_matter(tmp_path):
    part = make_zip(tmp_path / "part.zip", {"1.jpg": JPEG})
    put(tmp_path / "x.zip", b"MZ self-extracting" * 100 + part.read_bytes())
    source = open_images([tmp_path / "x.zip"])
    assert source.read(0) == JPEG and len(source) == 1


def test_one_of_several_volumes_is_refused(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"1.jpg": JPEG})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 34] = 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="one of several volumes"):
        open_images([path])


def test_large_zip_files_are_read(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "x.zip", "w") as archive,
        archive.open(zipfile.ZipInfo("1.jpg"), "w", force_zip64=True) as member,
    ):
        member.write(JPEG)
    assert open_images([tmp_path / "x.zip"]).read(0) == JPEG


# The line


def test_a_line_of_many_kinds_is_cut_and_says_so(tmp_path):
    root = ten(tmp_path / "data")
    for i in range(50):
        put(root / f"x.kind{i:02}")
    assert re.fullmatch(r"left out 50: (1 \.kind\d\d, ){29}1 \.kind\d\d, and 20 more kinds", told(root))
    assert len(open_images([root]).left_out.lines()) == 50


def test_names_that_are_no_text_do_not_break_the_line(tmp_path):
    root = ten(tmp_path / "data")
    for name in (b"caf\xe9.j\xe9p\n", b"\xff\n"):
        with open(os.path.join(os.fsencode(root), name), "wb"):
            pass
    (root / "\udcff\n link").symlink_to("/nowhere")
    assert told(root).isprintable() and "left out 3" in told(root)


@pytest.mark.parametrize(
    "name, expected",
    [(b"a.tar.gz", ".tar.gz"), (b"b/a.TXT", ".txt"), (b"a", "without an ending"), (b".x.jpg", "hidden")],
)
def test_the_kind_of_a_file_is_its_last_ending(name, expected):
    assert kind_of(name).name == expected
