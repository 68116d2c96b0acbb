"""The loader: the same samples whatever the workers, ranks and interruptions; bad files replaced, named, counted."""

import logging
import os
import random
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pixpro.data import Loader, make_loader
from pixpro.data.bad_files import BadFiles
from pixpro.data.order import epoch_order
from pixpro.data.samples import Batch, generator
from pixpro.errors import UserError, printable
from pixpro.images import decode, open_images
from pixpro.images.decoding import BadImage
from pixpro.views import crop_box, crop_pixels, draw_crop
from tests import pictures


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_images([pictures.folder(tmp_path_factory.mktemp("images") / "data", 26)])


def loader_of(source, **settings) -> Loader:
    return make_loader(source, **{"batch_size": 8, "image_size": 32, "seed": 3, **settings})


def joined(batches: list[Batch]) -> list[torch.Tensor]:
    """Every tensor of the batches, one after the other."""
    flat = [[*b.view1, *b.view2, *b[2:]] for b in batches]
    return [torch.cat(parts) for parts in zip(*flat, strict=True)]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(joined(a), joined(b), strict=True))


def epoch_of(loader: Loader, epoch: int = 2, step: int = 0) -> list[Batch]:
    loader.set_position(epoch, step)
    return list(loader)


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
    names = source.stores[0]._names._block
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


# --- bad files

DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "no header": lambda data: data[:3],
    "text": lambda data: b"<html>404 not found</html>",
    "zeros": lambda data: b"\0" * len(data),
    "bomb": lambda data: re.sub(b"(\xff\xc0\x00\x11\x08)....", b"\\1\xff\xdc\xff\xdc", data, count=1, flags=re.S),
}


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


# --- workers


def test_a_killed_worker_stops_the_run_with_one_line(source):
    loader = loader_of(source, workers=1)
    list(loader)
    (worker,) = loader._batches._iterator._workers
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="data worker died") as error:
        epoch_of(loader)
    assert "\n" not in str(error.value)


def test_a_mistake_of_ours_in_a_worker_keeps_its_traceback(source, monkeypatch):
    def broken(*_):
        raise RuntimeError("a mistake")

    monkeypatch.setattr("pixpro.data.samples.draw_colour", broken)  # forked workers inherit it
    with pytest.raises(RuntimeError, match="(?s)Traceback.*draw_colour.*a mistake"):
        list(loader_of(source, workers=1, start_method="fork"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM])
def test_workers_survive_a_scheduler_s_signals(source, number):
    loader = loader_of(source, workers=1)
    expected = epoch_of(loader)
    (worker,) = loader._batches._iterator._workers
    other = threading.Thread(target=os.system, args=(f"kill -{int(number)} {worker.pid}",))
    other.start()
    other.join()
    assert same(epoch_of(loader), expected)
    assert worker.is_alive()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_no_thread_of_a_worker_takes_a_scheduler_s_sigterm(source):
    """Threads that libraries start in a new process, before our code runs in it, once did: the worker died."""
    loader = loader_of(source, workers=1)
    list(loader)
    (worker,) = loader._batches._iterator._workers
    statuses = [task.joinpath("status").read_text() for task in Path(f"/proc/{worker.pid}/task").iterdir()]
    blocked = [int(line.split()[1], 16) for text in statuses for line in text.splitlines() if line.startswith("SigBlk")]
    taking = [mask for mask in blocked if not mask >> (signal.SIGTERM - 1) & 1]
    assert len(blocked) > 1 and len(taking) <= 1, "only the thread that waits for SIGTERM may take it"
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_worker_ends_when_the_training_process_says_so(source):
    loader = loader_of(source, workers=1)
    list(loader)
    (worker,) = loader._batches._iterator._workers
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


def test_file_names_are_printed_on_one_line():
    name = os.fsdecode(b"/data/\xff\n\x1b[31m.jpg")
    assert printable(name) == "/data/\\udcff\\n\\x1b[31m.jpg"
    assert printable("/data/ünï cödé.jpg") == "/data/ünï cödé.jpg"
    assert Path(printable("a\u202eb")).name == "a\\u202eb"
