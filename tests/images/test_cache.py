"""Lists and scenes are kept in one folder, wherever the system or the user has it, and without a home too."""

import os
import pwd
import stat
import tempfile
from functools import partial

import pytest

from pixpro.images.listing import cache_folder
from pixpro.scenes import sample_scenes
from tests.helpers import pictures
from tests.helpers.image_sources import found
from tests.helpers.runs import Run, arguments


def unknown(number: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {number}")


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """A user without HOME and without an entry in the list of users, as in a container that runs as any number."""
    for name in ("HOME", "XDG_CACHE_HOME", "PIXPRO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def test_scenes_and_lists_go_where_the_user_s_caches_are(tmp_path, monkeypatch):
    monkeypatch.delenv("PIXPRO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert sample_scenes(6, seed=1, held_out=2).parent == cache_folder() == tmp_path / "caches" / "pixpro"


def test_a_folder_that_was_chosen_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIXPRO_CACHE", "~/chosen")
    assert cache_folder() == tmp_path / "chosen"


def test_a_user_without_a_home_has_scenes_and_lists_too(tmp_path, homeless):
    assert sample_scenes(6, seed=1, held_out=2).parent == homeless / f"pixpro-{os.getuid()}"
    assert len(found(pictures.folder(tmp_path / "data", 2))) == 2
    assert stat.S_IMODE(cache_folder().stat().st_mode) == 0o700


def test_a_name_that_somebody_else_has_taken_is_not_trusted(homeless, monkeypatch):
    (homeless / f"pixpro-{os.getuid()}").write_text("in the way")
    first = cache_folder()
    assert first.is_dir() and first.name != f"pixpro-{os.getuid()}" and first.parent == homeless


def become_homeless(temporary: str) -> None:
    """Make the process that of a user without a home."""
    for name in ("HOME", "XDG_CACHE_HOME", "PIXPRO_CACHE"):
        os.environ.pop(name, None)
    pwd.getpwuid = unknown
    tempfile.tempdir = temporary


def test_a_user_without_a_home_trains(tmp_path):
    data = pictures.folder(tmp_path / "images", 16)
    run = Run(arguments(data, tmp_path / "run", "--epochs", "1"), partial(become_homeless, str(tmp_path)))
    assert run.wait() == [0], run.text()
