"""The marks of tests that run detectron2: picked by `-m detectron2`, skipped where it is not on the path."""

import importlib.util

import pytest

NEEDS_DETECTRON2 = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        importlib.util.find_spec("detectron2") is None,
        reason="detectron2 is not on the path: source install_packages.sh --detectron2",
    ),
]
