"""Checkpoints: complete or absent, checked when read, never fewer than one good one on disk."""

import errno
import os
import random
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixpro import checkpoint
from pixpro.errors import UserError
from pixpro.run import saver
from pixpro.run.checksum import checksum
from pixpro.run.endings import NotSaved
from pixpro.run.folder import RunFolder
from pixpro.run.interval import Interval
from pixpro.run.saver import Saver


def state(step: int = 0) -> dict:
    weights = {"a.weight": torch.arange(6.0).view(2, 3) + step, "a.bias": torch.ones(3, dtype=torch.bfloat16)}
    return {
        "model": weights,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "scaler": {},
        "step": step,
        "config": {"loss": "pixpro", "levels": [3, 4], "init": "", "none": None},
    }


def make_saver(folder: Path, keep: int = 2, last_is_good: bool = False, every: str = "1steps") -> Saver:
    return Saver(folder, every=Interval.parse(every), keep=keep, last_is_good=last_is_good, retry_seconds=0.0)


def steps_on_disk(folder: Path) -> list[int]:
    return [checkpoint.load(path)["step"] for path in checkpoint.newest_first(folder)]


def fail_writes(monkeypatch, times: int) -> None:
    """Let torch.save fail, as on a full disk, this many times."""
    left, write = iter(range(times)), torch.save

    def full(contents, file):
        if next(left, None) is not None:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(contents, file)

    monkeypatch.setattr(checkpoint.torch, "save", full)


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
    monkeypatch.setattr("pixpro.run.checksum.MAX_VALUES", 1000)
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


def test_the_newest_states_are_kept_in_order(tmp_path):
    writer = make_saver(tmp_path, keep=3)
    for step in range(1, 6):
        writer.write_now(lambda step=step: state(step), patience=0)
        assert steps_on_disk(tmp_path) == [s for s in (step, step - 1, step - 2) if s > 0]
    make_saver(tmp_path, keep=1, last_is_good=True).write_now(lambda: state(6), patience=0)
    assert steps_on_disk(tmp_path) == [6]


def test_a_good_state_is_there_at_every_moment_of_a_save(tmp_path, monkeypatch):
    writer, seen = make_saver(tmp_path), []
    writer.write_now(lambda: state(1), patience=0)
    writer.write_now(lambda: state(2), patience=0)
    for module, name in ((os, "replace"), (os, "fsync"), (checkpoint.torch, "save")):
        call = getattr(module, name)

        def watched(*args, call=call):
            seen.append(checkpoint.load_newest(tmp_path, pytest.fail)[1]["step"])
            result = call(*args)
            seen.append(checkpoint.load_newest(tmp_path, pytest.fail)[1]["step"])
            return result

        monkeypatch.setattr(module, name, watched)
    writer.write_now(lambda: state(3), patience=0)
    assert set(seen) == {2, 3} and seen == sorted(seen) and len(seen) >= 8


def test_a_full_disk_is_a_warning_and_the_write_is_tried_again(tmp_path, monkeypatch, caplog):
    writer = make_saver(tmp_path, every="1000steps")
    writer.write_now(lambda: state(1), patience=0)
    fail_writes(monkeypatch, times=2)
    writer._due = True
    for step in range(2, 6):
        writer.after_step(lambda step=step: state(step), step, 0, False)
        writer.finish()
        assert steps_on_disk(tmp_path) == ([1] if step < 4 else [4, 1])
        assert not list(tmp_path.glob(".*"))
    assert caplog.text.count("CHECKPOINT NOT WRITTEN") == 2 and "No space left on device" in caplog.text


def test_a_disk_that_turns_read_only_between_write_and_rename_is_a_warning(tmp_path, monkeypatch, caplog):
    writer = make_saver(tmp_path)
    writer.write_now(lambda: state(1), patience=0)

    def read_only(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(saver.os, "replace", read_only)
        patch.setattr(Path, "unlink", read_only)
        assert not writer._write(state(2))
    assert "Read-only file system" in caplog.text and steps_on_disk(tmp_path) == [1]


def test_a_last_write_that_never_succeeds_says_so(tmp_path, monkeypatch):
    writer = make_saver(tmp_path)
    writer.write_now(lambda: state(1), patience=0)
    fail_writes(monkeypatch, times=10)
    with pytest.raises(NotSaved, match="could not be written to"):
        writer.write_now(lambda: state(2), patience=0)
    assert steps_on_disk(tmp_path) == [1]


def test_training_goes_on_while_a_state_is_written_and_cannot_change_it(tmp_path, monkeypatch):
    writer, begun, go = make_saver(tmp_path), threading.Event(), threading.Event()
    write = torch.save

    def slow(contents, file):
        begun.set()
        assert go.wait(60)
        write(contents, file)

    monkeypatch.setattr(checkpoint.torch, "save", slow)
    present = state(1)
    writer.after_step(lambda: present, 1, 0, False)
    assert begun.wait(60) and writer.busy
    present["model"]["a.weight"].fill_(-1)
    writer.after_step(lambda: pytest.fail("a second writer was begun"), 2, 0, False)
    go.set()
    writer.finish()
    assert checksum(checkpoint.load(tmp_path / "last.pth.tar")) == checksum(state(1))
    writer.after_step(lambda: state(3), 3, 0, False)  # what was due meanwhile
    writer.finish()
    assert steps_on_disk(tmp_path) == [3, 1]


def test_a_kept_state_is_its_own_file_or_a_second_name_of_one(tmp_path, monkeypatch):
    def no_links(*args):
        raise OSError(errno.EPERM, "no hard links here")

    writer = make_saver(tmp_path)
    writer.keep_for_good(lambda: state(1), "0001.pth.tar")
    assert (tmp_path / "0001.pth.tar").samefile(tmp_path / "last.pth.tar")
    monkeypatch.setattr(saver.os, "link", no_links)
    writer.keep_for_good(lambda: state(2), "0002.pth.tar")
    assert [checkpoint.load(tmp_path / f"000{n}.pth.tar")["step"] for n in (1, 2)] == [1, 2]


@pytest.mark.parametrize(("text", "amount", "unit"), [("10min", 10, "min"), ("1 step", 1, "steps"), ("2ep", 2, "ep")])
def test_intervals_are_read_with_their_unit(text, amount, unit):
    assert Interval.parse(text) == Interval(amount, unit)


@given(st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_other_interval_is_refused(text):
    try:
        interval = Interval.parse(text)
    except UserError as error:
        assert repr(text) in str(error)
    else:
        assert interval.amount > 0 and interval.unit in ("min", "steps", "ep")


def test_intervals_pass_when_they_should():
    assert [n for n in range(1, 10) if Interval.parse("3steps").passed(n, 0, False, 0.0)] == [3, 6, 9]
    assert Interval.parse("2ep").passed(5, 2, True, 0.0) and not Interval.parse("2ep").passed(5, 2, False, 99.0)
    assert not Interval.parse("2ep").passed(5, 3, True, 99.0)
    assert Interval.parse("0.5min").passed(1, 0, False, 0.5) and not Interval.parse("0.5min").passed(1, 0, False, 0.4)


def test_a_folder_with_checkpoints_is_not_started_over(tmp_path):
    checkpoint.save(tmp_path / "last.pth.tar", state(1))
    with pytest.raises(UserError, match="--resume auto"):
        RunFolder(tmp_path, fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth.tar"]
    RunFolder(tmp_path, fresh=False).close()
