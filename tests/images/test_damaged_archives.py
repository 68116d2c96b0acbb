"""Damaged and hostile archives: one clear error or a bad image, never a hang or an endless read."""

import contextlib
import os
import random
import zipfile

import pytest

from pixpro.errors import UserError
from pixpro.images import open_images
from pixpro.images.decoding import BadImage
from tests.helpers.image_sources import JPEG, make_tar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))


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
