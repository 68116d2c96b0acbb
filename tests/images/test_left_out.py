"""Every file below a root is read, or counted with its reason; nothing is left out in silence."""

import os
import re
import socket
from pathlib import Path

import pytest

from pixpro.errors import UserError
from pixpro.images import listing, open_images
from pixpro.images.kinds import kind_of
from tests.helpers.image_sources import JPEG, found, make_tar, put
from tests.helpers.left_out_files import ten, told

WHERE = "; `python -m pixpro check` says where"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))


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
