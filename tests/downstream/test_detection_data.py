"""Detection images are resized and flipped with their boxes, shared out to processes, and named when damaged."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from downstream.detection.annotated import AnnotatedImage
from downstream.detection.data import ImagesToTest, TrainImages, grouped_batches, loader, resize
from downstream.detection.voc import load_voc
from pixpro.errors import UserError


@pytest.mark.parametrize(
    ("shape", "short", "longest", "expected"),
    [((480, 640), 800, 1333, (800, 1067)), ((500, 2000), 800, 1333, (333, 1333)), ((375, 500), 480, 1333, (480, 640))],
)
def test_the_short_side_is_set_unless_the_long_one_grows_too_long(shape, short, longest, expected):
    assert resize(np.zeros((*shape, 3), np.uint8), short, longest).shape[:2] == expected


def test_boxes_follow_their_pixels_through_resize_and_flip(tmp_path: Path):
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[12:30, 18:48] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    box = np.array([[18, 12, 48, 30]], np.float32)
    image = AnnotatedImage("a", tmp_path / "a.png", 90, 60, box, np.array([1]), np.array([False]))
    data = TrainImages([image], short_sides=(60, 120), max_size=1000, seed=0)
    seen = set()
    for position in range(12):
        shown, target = data[position, 0]
        rows, columns = np.nonzero(shown[0].numpy() > 127)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(target["boxes"][0].numpy(), found, atol=1)
        seen.add((shown.shape[1], float(target["boxes"][0, 0])))
    assert seen == {(60, 18), (60, 42), (120, 36), (120, 84)}  # both sizes, each with and without a flip


def test_a_sample_depends_on_its_position_in_the_run_alone(scenes: Path):
    data = TrainImages(load_voc(scenes, "trainval", "test").train, short_sides=(64, 96, 128), max_size=200, seed=0)
    first = [data[position, 2] for position in range(6)]
    again = [data[position, 2] for position in range(6)]
    assert all((a[0] == b[0]).all() for a, b in zip(first, again, strict=True))
    assert len({pixels.shape for pixels, _ in first}) > 1


def some_images(count: int) -> list[AnnotatedImage]:
    """Images of which every third is tall."""
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    return [AnnotatedImage(str(i), Path("x"), 4, 8 if i % 3 == 0 else 3, *nothing) for i in range(count)]


def test_wide_and_tall_images_do_not_share_a_batch():
    images = some_images(20)
    wide = [image.wide for image in images]
    for batch in itertools.islice(grouped_batches(wide, batch=4, seed=0, rank=0, world_size=1), 30):
        assert len(batch) == 4 and len({images[index].width > images[index].height for _, index in batch}) == 1


def test_processes_share_one_stream_in_which_every_image_comes_once_per_pass():
    wide = [image.wide for image in some_images(12)]
    streams = [grouped_batches(wide, batch=1, seed=3, rank=rank, world_size=2) for rank in range(2)]
    taken = sorted(itertools.chain(*(batch for s in streams for batch in itertools.islice(s, 12))))
    assert [position for position, _ in taken] == list(range(24))
    for start in (0, 12):
        assert sorted(index for _, index in taken[start : start + 12]) == list(range(12))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_or_swapped_picture_is_one_clear_line(tmp_path: Path, workers: int):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 nothing")
    Image.new("RGB", (5, 6)).save(tmp_path / "b.jpg")
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    for name, message in (("a", "cannot be read"), ("b", "is 5x6, its annotation says 40x30")):
        data = ImagesToTest(
            [AnnotatedImage(name, tmp_path / f"{name}.jpg", 40, 30, *nothing)], short_side=8, max_size=20
        )
        with pytest.raises(UserError, match=message) as error:
            list(loader(data, iter([[0]]), workers))
        assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))


@pytest.mark.detectron2
def test_samples_equal_those_of_detectron2(scenes: Path):
    pytest.importorskip("detectron2", reason="detectron2 is not on the path", exc_type=ImportError)
    from detectron2.data import detection_utils, transforms

    image = load_voc(scenes, "trainval", "test").train[0]
    ours = TrainImages([image], short_sides=(131,), max_size=170, seed=0)
    pixels = detection_utils.read_image(image.path, format="RGB")
    shown = {}
    for position in range(8):
        found, target = ours[position, 0]
        shown[bool((target["boxes"][:, 0] != ours[0, 0][1]["boxes"][:, 0]).any())] = found, target
    assert len(shown) == 2
    for flip in (0.0, 1.0):
        steps = [transforms.ResizeShortestEdge([131], 170, "choice"), transforms.RandomFlip(flip)]
        given = transforms.AugInput(pixels.copy(), boxes=image.boxes.copy())
        transforms.AugmentationList(steps)(given)
        matches = [
            np.array_equal(found.permute(1, 2, 0).numpy(), given.image)
            and np.allclose(target["boxes"].numpy(), given.boxes, atol=1e-4)
            for found, target in shown.values()
        ]
        assert matches.count(True) == 1
