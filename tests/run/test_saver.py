"""Saving: beside training, again after a failure, and never fewer than one good checkpoint on disk."""

import errno
import os
import threading
from pathlib import Path

import pytest
import torch

from pixpro.checkpoints import checkpoint
from pixpro.checkpoints.checksum import checksum
from pixpro.run import saver
from pixpro.run.interval import Interval
from pixpro.run.saver import Saver
from pixpro.training.endings import NotSaved
from tests.helpers.small_state import state


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
