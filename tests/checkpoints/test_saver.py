"""Saving: beside training, again after a failure, and never fewer than one good checkpoint on disk."""

import errno
import os
import threading
from pathlib import Path

import pytest
import torch

from pixpro.checkpoints import checkpoint, saver
from pixpro.checkpoints.checkpoint import checksum
from pixpro.checkpoints.folder import RunFolder
from pixpro.checkpoints.saver import Interval, Saver
from pixpro.errors import NotSaved
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


def synced(monkeypatch) -> list[str]:
    """What reaches the disk from now on, in order: names of synced files and folders, and of renames."""
    seen, fsync, replace = [], os.fsync, os.replace

    def noted(descriptor):
        seen.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def renamed(source, target):
        seen.append(f"rename to {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", renamed)
    return seen


@pytest.mark.parametrize("links", [True, False])
def test_names_and_copies_are_on_disk_before_a_save_is_over(tmp_path, monkeypatch, links):
    def no_links(*args):
        raise OSError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(saver.os, "link", no_links)
    seen, partial, folder = synced(monkeypatch), f".0001.pth.tar.{os.getpid()}.partial", tmp_path.name
    make_saver(tmp_path).keep_for_good(lambda: state(1), "0001.pth.tar")
    written = [f"sync .last.pth.tar.{os.getpid()}.partial", "rename to last.pth.tar", f"sync {folder}"]
    copied = [] if links else [f"sync {partial}"]
    assert seen == [*written, *copied, "rename to 0001.pth.tar", f"sync {folder}"]


def test_a_copy_that_does_not_fit_leaves_nothing_behind(tmp_path, monkeypatch, caplog):
    def no_links(*args):
        raise OSError(errno.EPERM, "no hard links here")

    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(saver.os, "link", no_links)
    monkeypatch.setattr(saver.shutil, "copyfile", full)
    make_saver(tmp_path).keep_for_good(lambda: state(1), "0001.pth.tar")
    assert "0001.pth.tar NOT WRITTEN: No space left on device" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth.tar"]


def test_the_settings_of_a_run_are_on_disk_before_it_begins(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, fresh=True)
    seen = synced(monkeypatch)
    folder.write_json("config.json", {"epochs": 1})
    folder.close()
    assert seen == [f"sync .config.json.{os.getpid()}.partial", "rename to config.json", f"sync {tmp_path.name}"]
