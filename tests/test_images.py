"""Sources of images: what is found in folders and archives, how the lists are kept, what is refused."""

import contextlib
import os
import pickle
import random
import stat
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from pixpro.errors import UserError
from pixpro.images import decode, listing, open_images
from pixpro.images.decoding import BadImage
from pixpro.images.names import Names
from tests import pictures

JPEG = pictures.encoded(pictures.texture(20, 30), "JPEG")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(path: Path, data: bytes = JPEG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def found(*roots: Path) -> list[str]:
    source = open_images(roots)
    return [source.name(i) for i in range(len(source))]


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


# --- cached lists


@pytest.fixture
def settled(monkeypatch):
    """Time stamps count as settled at once."""
    monkeypatch.setattr(listing, "RACY_NS", -(10**12))


def scans(monkeypatch) -> list[str]:
    """Folders walked from now on."""
    from pixpro.images import folders

    walked, walk = [], folders.walk

    def counting(root, listed):
        walked.append(os.fsdecode(root))
        return walk(root, listed)

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


# --- archives


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    return path


SHARD = {"000.jpg": JPEG, "000.cls": b"3", "000.json": b"{}", "n01/001.png": b"png bytes", "001.txt": b"text"}


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


def test_the_index_of_a_tar_is_kept_until_the_tar_changes(tmp_path, settled, monkeypatch):
    from pixpro.images.archives import TarStore

    shard = make_tar(tmp_path / "x.tar", {"1.jpg": b"one"})
    indexed, members = [], TarStore.members
    monkeypatch.setattr(TarStore, "members", lambda self: indexed.append(1) or members(self))
    assert found(shard) == found(shard) == [f"{shard}/1.jpg"]
    assert len(indexed) == 1
    make_tar(shard, {"0.jpg": b"zero", "1.jpg": b"one"})
    assert [open_images([shard]).read(i) for i in range(2)] == [b"zero", b"one"]


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


def test_a_zip_bomb_is_a_bad_image(tmp_path, monkeypatch):
    from pixpro.images import archives

    monkeypatch.setattr(archives, "MAX_BYTES", 10**6)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("honest.jpg", b"\0" * 10**7)
        archive.writestr("lying.jpg", b"\0" * 10**7)
    data = (tmp_path / "x.zip").read_bytes()
    size = (10**7).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(data[: (cut := data.rindex(size))] + (10).to_bytes(4, "little") + data[cut + 4 :])
    source = open_images([tmp_path / "x.zip"])
    with pytest.raises(BadImage, match="limit"):
        source.read(0)
    with pytest.raises(BadImage, match="another size"):
        source.read(1)


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_a_damaged_archive_is_refused_with_one_line(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    if suffix == ".tar":
        make_tar(path, {f"{i}.jpg": JPEG for i in range(4)})
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("1.jpg", JPEG)
    whole = path.read_bytes()
    damaged = [b"", b"junk" * 1000, whole[: len(JPEG) // 2 + 512]]
    if suffix == ".tar":  # a damaged header in the middle must not look like the end
        second = 512 + -(-len(JPEG) // 512) * 512
        damaged.append(whole[:second] + b"\x07" * 512 + whole[second + 512 :])
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError) as error:
            open_images([path])
        assert str(path) in str(error.value) and "\n" not in str(error.value)


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


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_damaged_bytes_in_an_archive_are_refused_or_read(tmp_path, kind):
    """200 archives with some bytes changed, checksums made to fit: one clear error or bytes, never a hang."""
    whole = tmp_path / f"whole.{kind}"
    if kind == "tar":
        make_tar(whole, {"a.jpg": b"x" * 700, "é/" + "b" * 120 + ".jpg": b"x" * 10, "c.png": b""})
    else:
        with zipfile.ZipFile(whole, "w") as archive:
            archive.writestr("a.jpg", b"x" * 700)
            archive.writestr("é.jpg", b"x" * 700, zipfile.ZIP_DEFLATED)
    rng, path = random.Random(0), tmp_path / f"x.{kind}"
    for _ in range(200):
        data = bytearray(whole.read_bytes())
        telling = [i for i, byte in enumerate(data) if byte not in (0, ord("x"))]
        for _ in range(rng.randint(1, 4)):
            data[rng.choice(telling)] = rng.choice([0, 128, 255, ord("7"), ord("-"), rng.randrange(256)])
        for start in range(0, len(data) - 511, 512) if kind == "tar" else ():
            if data[start + 257 : start + 262] == b"ustar":
                data[start + 148 : start + 156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
        path.write_bytes(data)
        try:
            source = open_images([path])
        except UserError as error:
            assert "\n" not in str(error)
            continue
        for i in range(len(source)):
            source.name(i)
            with contextlib.suppress(BadImage):
                assert isinstance(source.read(i), bytes)


def test_a_tar_member_of_negative_size_does_not_hang(tmp_path):
    shard = make_tar(tmp_path / "x.tar", {"1.jpg": b"data"})
    data = bytearray(shard.read_bytes())
    data[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512 in base 256: the next header would be this one again
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    shard.write_bytes(data)
    with pytest.raises(UserError, match="negative size"):
        open_images([shard])


def test_an_archive_that_was_cut_after_indexing_gives_bad_images(tmp_path):
    shard = make_tar(tmp_path / "x.tar", {"1.jpg": JPEG, "2.jpg": JPEG})
    source = open_images([shard])
    os.truncate(shard, 1536 + 600)
    with pytest.raises(BadImage, match="ends before"):
        source.read(1)


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
