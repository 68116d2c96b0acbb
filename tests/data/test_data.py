"""The loader: the same samples whatever the workers, ranks and interruptions."""

import numpy as np
import pytest
import torch

from pixpro.data.samples import epoch_order, generator
from pixpro.data.views import crop_box, crop_pixels, draw_crop
from pixpro.errors import UserError
from pixpro.images import decode, open_images
from tests.helpers import pictures
from tests.helpers.small_loaders import epoch_of, loader_of, same


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_images([pictures.folder(tmp_path_factory.mktemp("images") / "data", 26)])


def test_a_batch_has_the_promised_shapes(source):
    loader = loader_of(source)
    batches = list(loader)
    assert len(batches) == len(loader) == 26 // 8
    for batch in batches:
        for view in (batch.view1, batch.view2):
            assert view.pixels.shape == (8, 3, 32, 32) and view.pixels.dtype == torch.uint8
            assert view.pixels.is_contiguous(memory_format=torch.channels_last)
            assert view.box.shape == (8, 4) and view.box.dtype == torch.float32
        assert batch.colour1.shape == batch.colour2.shape == (8, 8)
        assert batch.colour1.dtype == torch.float32
        assert batch.index.shape == (8,) and batch.index.dtype == torch.int64
        assert batch.replaced.tolist() == [False] * 8


def test_a_sample_is_what_its_own_generator_draws(source):
    batch = epoch_of(loader_of(source), epoch=5)[0]
    place, index = 3, int(batch.index[3])
    image = decode(source.read(index))
    for view, (pixels, box) in enumerate((batch.view1, batch.view2)):
        rng = generator(3, 5, index, view)
        crop = draw_crop(rng, *image.shape[1:])
        flip = rng.random() < 0.5
        assert torch.equal(pixels[place].permute(1, 2, 0), crop_pixels(image, crop, flip, 32))
        assert torch.equal(box[place], torch.tensor(crop_box(crop, *image.shape[1:], flip)))


def test_generators_of_different_samples_differ():
    keys = [(s, e, i, v) for s in range(3) for e in range(3) for i in (0, 1, 2**20) for v in range(3)]
    assert len({generator(*key).random() for key in keys}) == len(keys)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(source, workers):
    alone, parallel = loader_of(source), loader_of(source, workers=workers)
    for epoch in (0, 1):  # twice: workers live on between epochs
        assert same(epoch_of(alone, epoch), epoch_of(parallel, epoch))


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_workers_that_inherit_nothing_give_the_same_and_share_the_names(tmp_path, start_method):
    source = open_images([pictures.folder(tmp_path / "data", 8)])
    names = source.stores[0].names._block
    assert not names.is_shared()
    parallel = epoch_of(loader_of(source, workers=1, start_method=start_method))
    assert names.is_shared(), "workers map the names instead of copying them"
    assert same(epoch_of(loader_of(source)), parallel)


@pytest.mark.parametrize("world_size, accumulation", [(2, 1), (1, 2), (2, 2), (4, 2), (1, 8)])
def test_a_global_step_holds_the_same_samples_in_the_same_order(source, world_size, accumulation):
    whole = epoch_of(loader_of(source))
    settings = {"world_size": world_size, "accumulation": accumulation}
    ranks = [epoch_of(loader_of(source, rank=rank, **settings)) for rank in range(world_size)]
    for step, expected in enumerate(whole):
        parts = [batch for rank in ranks for batch in rank[step * accumulation : (step + 1) * accumulation]]
        assert same([expected], parts)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_at_any_step_goes_on_as_if_nothing_happened(source, workers):
    loader = loader_of(source, workers=workers, accumulation=2)
    whole = epoch_of(loader)
    for step in range(len(loader) + 1):
        rest = epoch_of(loader, step=step)
        assert len(rest) == 2 * (len(loader) - step)
        assert not rest or same(rest, whole[2 * step :])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_left_in_the_middle_does_not_leak_into_the_next(source, workers):
    loader = loader_of(source, workers=workers)
    expected = epoch_of(loader, epoch=1)
    loader.set_position(0)
    next(iter(loader))
    assert same(epoch_of(loader, epoch=1), expected)


def test_nothing_before_the_position_is_read(source, monkeypatch):
    loader = loader_of(source)
    read, original = [], source.read
    monkeypatch.setattr(source, "read", lambda i: read.append(i) or original(i))
    epoch_of(loader, epoch=4, step=2)
    assert read == epoch_order(26, 3, 4)[16:24].tolist()


def test_an_epoch_shows_each_image_once_and_epochs_differ(source):
    loader = loader_of(source, batch_size=26)
    first, second = (epoch_of(loader, epoch)[0] for epoch in (0, 1))
    assert sorted(first.index.tolist()) == sorted(second.index.tolist()) == list(range(26))
    assert first.index.tolist() != second.index.tolist()
    order = [first.index.argsort(), second.index.argsort()]
    assert not torch.equal(first.view1.pixels[order[0]], second.view1.pixels[order[1]])
    assert not torch.equal(epoch_of(loader_of(source, batch_size=26, seed=4), 0)[0].index, first.index)


def test_the_order_is_frozen():
    """Made with numpy's legacy generator by hand: a resumed run must find it again under any version."""
    state = np.random.RandomState(np.array([7, 1, 2], dtype=np.uint32))
    assert epoch_order(50, (1 << 32) + 7, 2).tolist() == state.permutation(50).tolist()


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"batch_size": 27}, "larger than the data set of 26"),
        ({"batch_size": 8, "world_size": 3}, "multiple of 3"),
        ({"batch_size": 8, "world_size": 2, "accumulation": 8}, "multiple of 16"),
        ({"batch_size": 0}, "batch size 0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_batches_are_refused(source, settings, words):
    with pytest.raises(UserError, match=words):
        loader_of(source, **settings)
