"""Folders of images: what is found in them, in which order, and what is refused."""

import os
from pathlib import Path

import pytest

from pixpro.errors import UserError
from pixpro.images import decode, open_images
from pixpro.images.decoding import BadImage
from tests.helpers import pictures
from tests.helpers.image_sources import JPEG, found, put


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))


def test_images_are_found_at_any_depth_in_sorted_order(tmp_path):
    root = tmp_path / "data"
    wanted = ["b.jpg", "z.PNG", "a/2.jpeg", "a/deep/er/1.JPEG", "c/x y.webp"]
    for name in wanted:
        put(root / name)
    for name in ("notes.txt", "jpg", ".hidden.jpg", "a/._2.jpeg", ".git/x.jpg", "b.jpg.part"):
        put(root / name)
    (root / "folder.jpg").mkdir()
    assert found(root) == [str(root / name) for name in wanted]


def test_the_bytes_read_are_the_file_s(tmp_path):
    put(tmp_path / "data/1.jpg")
    put(tmp_path / "data/2.jpg", b"other")
    source = open_images([tmp_path / "data"])
    assert source.read(0) == JPEG and source.read(1) == b"other"
    assert decode(source.read(0)).shape == (3, 20, 30)


def test_names_that_are_not_utf8_are_read(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    with open(os.path.join(os.fsencode(root), b"caf\xe9\n.jpg"), "wb") as file:
        file.write(JPEG)
    assert open_images([root]).read(0) == JPEG


def test_links_are_followed_and_loops_end(tmp_path):
    put(tmp_path / "elsewhere/1.jpg")
    root = tmp_path / "data"
    put(root / "0.jpg")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert found(root) == [str(root / "0.jpg"), str(root / "linked/1.jpg")]


def test_several_sources_are_numbered_through(tmp_path):
    roots = [pictures.folder(tmp_path / name, count) for name, count in (("a", 3), ("b", 1), ("c", 2))]
    source = open_images(roots)
    assert len(source) == 6
    assert [Path(source.name(i)).parent.name for i in range(6)] == list("aaabcc")
    assert [source.read(i) for i in range(6)] == [Path(source.name(i)).read_bytes() for i in range(6)]


def test_an_unreadable_file_is_a_bad_image(tmp_path):
    root = tmp_path / "data"
    gone = put(root / "gone.jpg")
    os.mkfifo(root / "pipe.jpg")
    (root / "broken.jpg").symlink_to("nowhere")
    source = open_images([root])
    gone.unlink()
    for i in range(3):
        with pytest.raises(BadImage):
            decode(source.read(i))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda root: None, "no such"),
        (lambda root: root.mkdir(), "no images found"),
        (lambda root: put(root / "readme.txt"), "no images found"),
        (lambda root: put(root), "neither a folder"),
    ],
    ids=["missing", "empty", "without images", "a file"],
)
def test_what_holds_no_images_is_refused_with_one_line(tmp_path, make, words):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=words) as error:
        open_images([tmp_path / "data"])
    assert str(tmp_path / "data") in str(error.value) and "\n" not in str(error.value)
