"""Checkpoints: read back as they were, checked when read, passed over when damaged, never started over."""

import contextlib
import random
import zipfile
from pathlib import Path

import pytest
import torch

from pixpro.checkpoints import checkpoint
from pixpro.checkpoints.checkpoint import checksum
from pixpro.checkpoints.folder import RunFolder
from pixpro.checkpoints.safe_load import load_untrusted
from pixpro.errors import UserError
from tests.helpers.small_state import state


def test_a_state_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "last.pth.tar", state(7))
    loaded = checkpoint.load(tmp_path / "last.pth.tar")
    assert checksum(loaded) == checksum(state(7)) and loaded["step"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth.tar"]


def test_every_single_change_changes_the_checksum():
    def variants():
        for value in (1, 1.0, True, "1", None, [1], (1,), {1: 1}, [[1]], torch.tensor(1), torch.tensor([1])):
            yield {"a": value}
        yield {"b": 1}
        yield {"a": [1, [2]]}
        yield {"a": [[1], 2]}
        yield {"a": torch.tensor([0.0])}
        yield {"a": torch.tensor([-0.0])}
        yield {"a": torch.zeros(2, 3)}
        yield {"a": torch.zeros(3, 2)}
        yield {"a": torch.zeros(2, 3, dtype=torch.int32)}

    found = [checksum(variant) for variant in variants()]
    assert len(set(found)) == len(found)


def test_a_checksum_of_endless_contents_ends(monkeypatch):
    circle: list = []
    circle.append(circle)
    monkeypatch.setattr("pixpro.checkpoints.checkpoint.MAX_VALUES", 1000)
    with pytest.raises(ValueError, match="more than 1000 values"):
        checksum(circle)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, overwritten or swapped bytes."""
    kind = rng.randrange(5)
    if kind == 0:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    if kind == 1:
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    else:
        start = rng.randrange(len(changed))
        stop = start + rng.randrange(1, 200)
        changed[start:stop] = {2: bytes(stop - start), 3: rng.randbytes(stop - start), 4: b""}[kind]
    return bytes(changed)


def check_damaged(folder: Path, count: int, seed: int) -> int:
    """Damage last.pth.tar in `count` ways; each is noticed or harmless. Returns how many were noticed."""
    checkpoint.save(folder / "last-1.pth.tar", state(1))
    checkpoint.save(folder / "last.pth.tar", state(2))
    content, rng, noticed = (folder / "last.pth.tar").read_bytes(), random.Random(seed), 0
    for _ in range(count):
        (folder / "last.pth.tar").write_bytes(damaged(content, rng))
        warnings: list[str] = []
        path, found = checkpoint.load_newest(folder, warnings.append)
        noticed += len(warnings)
        assert checksum(found) == checksum(state(2 - len(warnings))), path
        assert all(text.isprintable() and str(folder) in text for text in warnings)
    return noticed


def test_damaged_checkpoints_are_noticed_and_the_one_before_is_used(tmp_path):
    assert check_damaged(tmp_path, 60, seed=0) > 30


@pytest.mark.soak
def test_a_thousand_damaged_checkpoints_are_noticed(tmp_path, capsys):
    noticed = check_damaged(tmp_path, 1000, seed=1)
    with capsys.disabled():
        print(
            f"\n1000 damaged checkpoints: {noticed} noticed and passed over, {1000 - noticed} read to the same values"
        )


def test_only_damaged_checkpoints_are_a_clear_end(tmp_path):
    (tmp_path / "last.pth.tar").write_bytes(b"")
    (tmp_path / "0010.pth.tar").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"none of the 2 checkpoint\(s\)"):
        checkpoint.load_newest(tmp_path, lambda text: None)


@pytest.mark.parametrize(
    "contents", [{"state_dict": {}}, [1, 2], {**state(), "step": "1"}, {**state(), "model": torch.zeros(1)}]
)
def test_other_files_are_no_training_states(tmp_path, contents):
    torch.save(contents, tmp_path / "last.pth.tar")
    with pytest.raises(UserError, match="holds no training state"):
        checkpoint.load(tmp_path / "last.pth.tar")


def test_a_state_without_its_checksum_is_refused(tmp_path):
    torch.save(state(), tmp_path / "last.pth.tar")
    with pytest.raises(UserError, match="checksum differs"):
        checkpoint.load(tmp_path / "last.pth.tar")


def test_a_folder_with_checkpoints_is_not_started_over(tmp_path):
    checkpoint.save(tmp_path / "last.pth.tar", state(1))
    with pytest.raises(UserError, match="--resume auto"):
        RunFolder(tmp_path, fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth.tar"]
    RunFolder(tmp_path, fresh=False).close()


def zip_alone_reads(path: Path) -> dict | None:
    """What the loader makes of a file whose zip checksums are right; None when either has something against it."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
        found = load_untrusted(path) if whole else None
    except Exception:  # whatever the damage leads to
        return None
    if found:
        found.pop("checksum")
    return found


def flip_bits(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Flip one bit of a checkpoint, `count` times; returns how many of them zip alone missed, and our checksum."""
    path, content, rng = folder / "last.pth.tar", bytearray(), random.Random(seed)
    checkpoint.save(path, state(2))
    content[:], expected, missed = path.read_bytes(), checksum(state(2)), [0, 0]
    for _ in range(count):
        place, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        content[place] ^= bit
        path.write_bytes(content)
        content[place] ^= bit
        alone = zip_alone_reads(path)
        missed[0] += alone is not None and checksum(alone) != expected
        with contextlib.suppress(UserError):
            missed[1] += checksum(checkpoint.load(path)) != expected
    return missed[0], missed[1]


def test_a_bit_that_zip_does_not_protect_is_noticed(tmp_path):
    """An entry that says it is a folder: its zip checksum is right, and torch leaves its tensor unread."""
    checkpoint.save(tmp_path / "last.pth.tar", state(2))
    content = bytearray((tmp_path / "last.pth.tar").read_bytes())
    entry = content.index(b"PK\x01\x02")
    while not content[entry + 46 :].startswith(b"archive/data/0"):
        entry = content.index(b"PK\x01\x02", entry + 1)
    content[entry + 38] ^= 0x10
    (tmp_path / "last.pth.tar").write_bytes(content)
    assert zipfile.ZipFile(tmp_path / "last.pth.tar").testzip() is None
    with pytest.raises(UserError, match="checksum differs"):
        checkpoint.load(tmp_path / "last.pth.tar")


@pytest.mark.soak
def test_of_four_thousand_flipped_bits_none_is_missed(tmp_path, capsys):
    zip_missed, we_missed = flip_bits(tmp_path, 4000, seed=0)
    with capsys.disabled():
        print(f"\n4000 flipped bits: {zip_missed} missed by zip's checksums and the loader, {we_missed} by ours")
    assert we_missed == 0
