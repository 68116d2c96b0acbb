"""Data that most tests of this folder read."""

from pathlib import Path

import pytest

from pixpro.scenes import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight sample scenes with boxes and masks in VOC's layout, two of them held out."""
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", 8)
