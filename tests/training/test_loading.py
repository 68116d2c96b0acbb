"""What a training process can find out before its first step instead of hanging or failing in it."""

import socket
import tempfile
from pathlib import Path

import pytest

from pixpro.errors import UserError
from pixpro.training.loading import require_short_names, require_statistics


def test_temporary_folders_are_refused_exactly_where_the_system_refuses_the_sockets_of_workers():
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        for length in (75, 76):
            folder = Path(place, "x" * (length - len(place) - 1))
            (folder / "pymp-12345678").mkdir(parents=True)
            possible = True
            try:
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(folder / "pymp-12345678" / "listener-12345678"))
            except OSError:
                possible = False
            try:
                require_short_names(str(folder))
            except UserError:
                assert not possible
            else:
                assert possible
            assert possible == (length == 75)


@pytest.mark.parametrize(("images", "side", "enough"), [(1, 32, False), (2, 32, True), (1, 33, True), (1, 224, True)])
def test_one_value_per_channel_is_refused(images, side, enough):
    if enough:
        require_statistics(images, side, "here")
    else:
        with pytest.raises(UserError, match="here: one crop of 32 pixels"):
            require_statistics(images, side, "here")
