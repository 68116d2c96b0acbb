"""The run that nobody disturbs, with which the tests of this folder compare theirs; read, never written to."""

from pathlib import Path

import pytest

from tests.helpers.runs import Run, arguments, pictures


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of all small runs."""
    return pictures(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="session")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed run of one process."""
    return finished(data, tmp_path_factory.mktemp("whole") / "run", ranks=1)


@pytest.fixture(scope="session")
def whole_of_two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed run of two processes, whose sums round differently."""
    return finished(data, tmp_path_factory.mktemp("whole_of_two") / "run", ranks=2)


def finished(data: Path, output: Path, ranks: int) -> Path:
    run = Run(arguments(data, output), ranks=ranks)
    assert run.wait() == [0] * ranks, run.text()
    return output
