"""Archives of every form, alone and among images, are read whole, counted with a reason, or refused in one line."""

import tarfile
import zipfile

import pytest

from pixpro.errors import UserError
from pixpro.images import open_images
from tests.helpers.image_sources import JPEG, found, make_tar, put
from tests.helpers.left_out_files import add, make_zip, ten, told

WHERE = "; `python -m pixpro check` says where"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))


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
