"""Where things are kept between runs: lists of files, and the sample scenes."""

import os
import tempfile
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """$PIXPRO_CACHE, or pixpro/ in the user's cache folder ($XDG_CACHE_HOME or ~/.cache on Linux)."""
    if chosen := os.environ.get("PIXPRO_CACHE"):
        return Path(os.path.expanduser(chosen))
    try:
        folder = platformdirs.user_cache_path("pixpro", appauthor=False)
    except RuntimeError:  # there is no home; older releases return a path that begins with ~
        return of_nobody()
    return folder if folder.is_absolute() else of_nobody()


def of_nobody() -> Path:
    """A folder for temporary files that is this user's alone: for a user without a home, as in some containers."""
    folder = Path(tempfile.gettempdir(), f"pixpro-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="pixpro-"))  # somebody else has taken the name
