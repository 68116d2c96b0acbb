"""Lists of images that number them differently are told apart; the same images in another place are not."""

import shutil
from pathlib import Path

import pytest

from pixpro.images import ImageSet, open_images
from tests.helpers.image_sources import make_tar, put


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))


def images(root: Path, *more: Path) -> ImageSet:
    return ImageSet.of(open_images([root, *more]))


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        put(tmp_path / "data" / name)
    return tmp_path / "data"


CHANGES = {
    "renamed": lambda root: (root / "a/1.jpg").rename(root / "a/4.jpg"),
    "moved": lambda root: (root / "a/2.jpg").rename(root / "b/2.jpg"),
    "letters change sides": lambda root: (root / "a").rename(root / "aa"),
    "another size": lambda root: (root / "a/1.jpg").write_bytes(b"0" * 99),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_names_and_sizes_are_other_images(root, change):
    before = images(root)
    change(root)
    assert images(root).count == before.count == 3 and images(root) != before


def test_the_place_does_not_count_but_the_order_does(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "elsewhere")
    assert images(root) == images(copy)
    put(tmp_path / "other" / "5.jpg")
    assert images(root, tmp_path / "other") != images(tmp_path / "other", root)


def test_members_of_archives_are_told_apart_by_name_and_size(tmp_path):
    contents = {"1.jpg": b"one", "2.jpg": b"two"}
    first = images(make_tar(tmp_path / "x.tar", contents))
    assert first == images(make_tar(tmp_path / "y.tar", contents))
    assert first != images(make_tar(tmp_path / "z.tar", {"1.jpg": b"longer", "2.jpg": b"two"}))
    assert first != images(make_tar(tmp_path / "w.tar", {"1.jpg": b"one", "3.jpg": b"two"}))


def test_only_some_files_are_asked_for_their_size(root, monkeypatch):
    monkeypatch.setattr("pixpro.images.SIZED", 2)
    asked = []
    source = open_images([root])
    monkeypatch.setattr(source.stores[0], "size", lambda i: asked.append(i) or 1)
    ImageSet.of(source)
    assert len(set(asked)) == 2


def test_a_file_that_is_gone_has_a_size_too(root):
    source = open_images([root])
    (root / "a/1.jpg").unlink()
    assert ImageSet.of(source).count == 3
