"""Lists of files: kept between runs, made anew when what they describe has changed, small in memory."""

import os
import pickle
from pathlib import Path

import pytest

from pixpro.images import listing, open_images
from pixpro.images.listing import Names
from tests.helpers import pictures
from tests.helpers.image_sources import found, make_tar, put


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def settled(monkeypatch):
    """Time stamps count as settled at once."""
    monkeypatch.setattr(listing, "RACY_NS", -(10**12))


def scans(monkeypatch) -> list[str]:
    """Folders walked from now on."""
    from pixpro.images import folders

    walked, walk = [], folders.walk

    def counting(root, *tallies):
        walked.append(os.fsdecode(root))
        return walk(root, *tallies)

    monkeypatch.setattr(folders, "walk", counting)
    return walked


def test_the_second_start_does_not_scan(tmp_path, settled, monkeypatch, cache):
    root = pictures.folder(tmp_path / "data", 3)
    before = sorted(os.listdir(root))
    walked = scans(monkeypatch)
    assert found(root) == found(root)
    assert len(walked) == 1
    assert sorted(os.listdir(root)) == before, "the user's folder is left as it was"
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda root: put(root / "a/new.jpg"),
        lambda root: (root / "a/1.jpg").unlink(),
        lambda root: (root / "a/1.jpg").rename(root / "a/renamed.jpg"),
        lambda root: put(root / "a/b/c/deep.jpg"),
        lambda root: (root / "a/b/2.jpg").rename(root / "2.jpg"),
        lambda root: (root / "link").symlink_to(root.parent / "elsewhere"),
    ],
    ids=["added", "removed", "renamed", "new folders", "moved", "linked"],
)
def test_a_changed_folder_is_scanned_again(tmp_path, settled, change):
    root = tmp_path / "data"
    put(root / "a/1.jpg")
    put(root / "a/b/2.jpg")
    put(tmp_path / "elsewhere/3.jpg")
    before = found(root)
    change(root)
    after = found(root)
    assert after != before
    assert after == [str(p) for p in map(Path, after) if p.is_file()]
    assert {Path(p).resolve() for p in after} == {p.resolve() for p in files(root)}


def files(root: Path) -> list[Path]:
    return [Path(folder) / name for folder, _, names in os.walk(root, followlinks=True) for name in names]


def test_a_list_made_while_the_folder_changes_is_not_kept(tmp_path, cache):
    root = pictures.folder(tmp_path / "data", 2)  # just written: a further change might leave the same time stamp
    found(root)
    assert not cache.exists()


def test_a_list_is_not_kept_either_when_the_file_server_s_clock_is_behind(tmp_path, cache, monkeypatch):
    root = pictures.folder(tmp_path / "data", 2)
    now = listing.time.time_ns
    monkeypatch.setattr(listing.time, "time_ns", lambda: now() + 3 * 10**9)  # ours is three seconds ahead of it
    found(root)
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04junk", b"\x00" * 1000])
def test_a_damaged_list_is_made_anew(tmp_path, settled, cache, damage):
    root = pictures.folder(tmp_path / "data", 2)
    expected = found(root)
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    assert found(root) == expected


def test_an_unwritable_cache_costs_time_only(tmp_path, settled, monkeypatch):
    root = pictures.folder(tmp_path / "data", 2)
    monkeypatch.setenv("PIXPRO_CACHE", str(put(tmp_path / "a file") / "below"))
    assert len(found(root)) == 2


def test_names_survive_packing_and_pickling():
    names = [b"a.jpg", b"", b"folder/\xff\xfe.png", "ünï/cödé.jpg".encode()]
    packed = Names.of(names)
    for copy in (packed, pickle.loads(pickle.dumps(packed)), Names(**packed.arrays())):
        assert [os.fsencode(copy[i]) for i in range(len(copy))] == names


def test_a_million_names_are_two_blocks_of_memory():
    count = 100_000
    packed = Names.of(b"n%08d/n%08d_%05d.JPEG" % (i // 1000, i // 1000, i % 1000) for i in range(count))
    assert sum(array.nbytes for array in packed.arrays().values()) == count * (30 + 8)
    assert len(pickle.dumps(packed)) < count * 40
    assert packed[99_999] == "n00000099/n00000099_00999.JPEG"


def test_the_index_of_a_tar_is_kept_until_the_tar_changes(tmp_path, settled, monkeypatch):
    from pixpro.images.archives import TarStore

    shard = make_tar(tmp_path / "x.tar", {"1.jpg": b"one"})
    indexed, members = [], TarStore.members
    monkeypatch.setattr(TarStore, "members", lambda self: indexed.append(1) or members(self))
    assert found(shard) == found(shard) == [f"{shard}/1.jpg"]
    assert len(indexed) == 1
    make_tar(shard, {"0.jpg": b"zero", "1.jpg": b"one"})
    assert [open_images([shard]).read(i) for i in range(2)] == [b"zero", b"one"]
