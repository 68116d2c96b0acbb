"""Bad image files: replaced, named once and counted, and the end of the run when they are too many."""

import logging
import random

import pytest

from pixpro.data import BadFiles
from pixpro.errors import UserError
from pixpro.images import decode, open_images
from pixpro.images.decoding import BadImage
from tests.helpers import pictures
from tests.helpers.pictures import DAMAGE
from tests.helpers.small_loaders import epoch_of, joined, loader_of, same


@pytest.fixture
def damaged(tmp_path):
    """A source of 40 images, the first six bad in six ways; the paths of the bad ones."""
    root = pictures.folder(tmp_path / "data", 40)
    bad = [root / f"{i:03}.jpg" for i in range(len(DAMAGE))]
    for path, damage in zip(bad, DAMAGE.values(), strict=True):
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(BadImage):
            decode(path.read_bytes())
    return open_images([root]), [str(path) for path in bad]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_replaced_named_once_and_counted(damaged, workers, caplog):
    source, bad = damaged
    loader = loader_of(source, workers=workers, max_bad=0.5)
    with caplog.at_level(logging.WARNING):
        epochs = [joined(epoch_of(loader, epoch)) for epoch in range(3)]
    for *_, index, replaced in epochs:
        assert sorted(index.tolist()) == list(range(40))
        assert index[replaced].sort().values.tolist() == list(range(len(bad)))
    assert sorted(loader.bad_files) == bad
    for path in bad:
        assert len([record for record in caplog.records if path in record.getMessage()]) == 1
    assert all(loader.bad_files.values()), "each with its reason"


def test_replacements_do_not_depend_on_workers_ranks_or_the_past(damaged):
    source, bad = damaged
    settings = {"max_bad": 0.5}
    whole = epoch_of(loader_of(source, **settings))
    assert same(whole, epoch_of(loader_of(source, workers=2, **settings)))
    assert same(whole[2:], epoch_of(loader_of(source, **settings), step=2))
    ranks = [epoch_of(loader_of(source, rank=rank, world_size=2, **settings)) for rank in range(2)]
    assert same(whole, [batch for pair in zip(*ranks, strict=True) for batch in pair])


def test_a_replacement_is_an_image_of_the_source(damaged):
    source, bad = damaged
    loader = loader_of(source, max_bad=0.5)
    dataset = loader._batches.dataset
    good = {decode(source.read(i)).numpy().tobytes() for i in range(len(bad), 40)}
    chosen = [dataset.load(0, i) for i in range(len(bad))]
    assert all(replaced and pixels.numpy().tobytes() in good for pixels, replaced in chosen)
    assert len({pixels.numpy().tobytes() for pixels, _ in chosen}) > 1


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_files_stop_the_run_with_the_list(damaged, workers):
    source, bad = damaged
    loader = loader_of(source, workers=workers, max_bad=0.1)
    with pytest.raises(UserError) as error:
        for epoch in range(2):
            epoch_of(loader, epoch)
    message = str(error.value)
    assert message.startswith("5 bad image files of 40, more than the allowed share of 0.1")
    assert sum(path in message for path in bad) == 5 and "\n" not in message


def test_exactly_the_allowed_share_goes_on(damaged):
    source, bad = damaged
    loader = loader_of(source, max_bad=len(bad) / 40)
    assert all(len(epoch_of(loader, epoch)) == 5 for epoch in range(3))


class Unreadable:
    """A large data set without a readable file."""

    def __len__(self) -> int:
        return 400_000

    def name(self, i: int) -> str:
        return f"{i}.jpg"

    def read(self, i: int) -> bytes:
        return b""


def test_a_rank_that_sees_a_part_of_a_large_data_set_stops_soon():
    """By number alone it would take 4000 bad files; the rate tells within the first hundreds of samples."""
    bad, found = BadFiles(Unreadable(), max_bad=0.01), 0
    with pytest.raises(UserError, match="bad image files of 400000"):
        for seen in range(20, 1000, 20):  # one in twenty
            found += 1
            bad.note([seen], seen, found)
    assert 10 < found < 50


def test_a_long_list_is_cut_short():
    with pytest.raises(UserError, match="30 bad image files of 400000, .*19.jpg .*; and 10 more; ") as error:
        BadFiles(Unreadable(), max_bad=0).note(list(range(30)), 30, 30)
    assert "20.jpg" not in str(error.value)


def test_the_allowed_rate_is_no_reason_to_stop():
    rng = random.Random(0)
    for _ in range(5):
        bad, found = BadFiles(Unreadable(), max_bad=0.01), 0
        for seen in range(1, 3000):
            if rng.random() < 0.01:
                found += 1
                bad.note([seen], seen, found)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_folder_that_vanishes_stops_the_run_with_one_line(tmp_path, workers):
    root = pictures.folder(tmp_path / "data", 16)
    loader = loader_of(open_images([root]), workers=workers, max_bad=1.0)
    assert len(list(loader)) == 2
    root.rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"data/\d+\.jpg and every image tried .* cannot be read") as error:
        epoch_of(loader)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_five_per_cent_of_one_kind_of_damage(tmp_path, kind):
    root = pictures.folder(tmp_path / "data", 40)
    bad = [root / "007.jpg", root / "030.jpg"]
    for path in bad:
        path.write_bytes(DAMAGE[kind](path.read_bytes()))
    source = open_images([root])
    allowed = loader_of(source, max_bad=0.05, workers=1)
    assert [len(epoch_of(allowed, epoch)) for epoch in range(2)] == [5, 5]
    assert sorted(allowed.bad_files) == sorted(map(str, bad))
    with pytest.raises(UserError, match="bad image files of 40"):
        epoch_of(loader_of(source, workers=1))
