"""Detection data are read as the layouts define them, augmented with their boxes, and refused when wrong."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from downstream.detection.annotated import AnnotatedImage
from downstream.detection.coco import coco_scores, load_coco
from downstream.detection.data import ImagesToTest, TrainImages, grouped_batches, loader, resize
from downstream.detection.voc import load_voc
from downstream.detection.voc_ap import Detections
from pixpro.errors import UserError
from pixpro.scenes import write_scenes
from pixpro.scenes.coco import write_coco

XML = """<annotation><size><width>40</width><height>30</height><depth>3</depth></size>{}</annotation>"""
OBJECT = (
    "<object><name>{}</name>{}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", 8)


def write_voc(folder: Path, annotations: dict[str, str]) -> Path:
    """A folder in VOC's layout: one grey 40 x 30 image per annotation, all in train.txt."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name, xml in annotations.items():
        (folder / "Annotations" / f"{name}.xml").write_text(xml)
        Image.new("RGB", (40, 30), "grey").save(folder / "JPEGImages" / f"{name}.jpg")
    (folder / "ImageSets/Main/train.txt").write_text("".join(f"{name}\n" for name in annotations))
    return folder


def test_voc_boxes_start_at_zero_and_difficult_ones_are_marked(tmp_path: Path):
    objects = OBJECT.format("dog", "", 1, 1, 40, 30) + OBJECT.format("cat", "<difficult>1</difficult>", 3.5, 4, 9, 10)
    data = load_voc(
        write_voc(tmp_path / "VOC2007", {"a": XML.format(objects)}).parent, "VOC2007/train", "VOC2007/train"
    )
    assert data.class_names == ["cat", "dog"]  # VOC's order
    (image,) = data.train
    assert image.boxes.tolist() == [[0, 0, 40, 30], [2.5, 3, 9, 10]]
    assert image.labels.tolist() == [2, 1] and image.ignored.tolist() == [False, True]
    assert (image.width, image.height, image.image_id) == (40, 30, "a")


def test_detectron2_names_of_splits_lead_to_their_folders(tmp_path: Path):
    for year, name in (("2007", "a"), ("2012", "b")):
        folder = write_voc(tmp_path / f"VOC{year}", {name: XML.format(OBJECT.format("cat", "", 1, 1, 9, 9))})
        (folder / "ImageSets/Main/train.txt").rename(folder / "ImageSets/Main/trainval.txt")
    data = load_voc(tmp_path, "voc_2007_trainval+voc_2012_trainval", "voc_2012_trainval")
    assert [image.image_id for image in data.train] == ["a", "b"]
    assert [image.image_id for image in data.test] == ["b"]


def test_an_image_without_a_filled_box_is_tested_but_not_trained_on(tmp_path: Path):
    annotations = {"a": XML.format(OBJECT.format("cat", "", 1, 1, 9, 9)), "b": XML.format("")}
    annotations["c"] = XML.format(OBJECT.format("cat", "", 41, 1, 60, 9))  # outside
    data = load_voc(write_voc(tmp_path, annotations), "train", "train")
    assert [image.image_id for image in data.train] == ["a"]
    assert [image.image_id for image in data.test] == ["a", "b", "c"]


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation>", "not an annotation"),
        (BOMB, "document type"),
        (BOMB.replace("<!DOCTYPE", '<?xml version="1.0"?>\n<!DOCTYPE'), "document type"),
        ("<annotation></annotation>", "width"),
        (XML.format(OBJECT.format("cat", "", "nan", 1, 9, 9)), "finite"),
        (XML.format(OBJECT.format("cat", "", "x", 1, 9, 9)), "could not convert"),
        (XML.format(OBJECT.format("", "", 1, 1, 9, 9)), "name"),
        (XML.format("").replace("40", "-4"), "-4x30"),
        (XML.format(""), "none of its 1 images has an object"),
    ],
)
def test_a_wrong_annotation_is_named_with_its_fault(tmp_path: Path, xml: str, message: str):
    with pytest.raises(UserError, match=message) as error:
        load_voc(write_voc(tmp_path, {"a": xml}), "train", "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ("", "lists no images"),
        ("../a\n", "one image name per line"),
        ("a 1\n", "one image name per line"),
        ("b\n", "there is no file"),
        ("a\na\n", "twice"),
    ],
)
def test_a_wrong_split_file_is_refused(tmp_path: Path, listing: str, message: str):
    folder = write_voc(tmp_path, {"a": XML.format(OBJECT.format("cat", "", 1, 1, 9, 9))})
    (folder / "ImageSets/Main/train.txt").write_text(listing)
    with pytest.raises(UserError, match=message):
        load_voc(folder, "train", "train")


def test_a_class_that_only_the_test_shows_is_refused(tmp_path: Path):
    write_voc(tmp_path / "one", {"a": XML.format(OBJECT.format("cat", "", 1, 1, 9, 9))})
    write_voc(tmp_path / "two", {"a": XML.format(OBJECT.format("yak", "", 1, 1, 9, 9))})
    with pytest.raises(UserError, match="yak"):
        load_voc(tmp_path, "one/train", "two/train")


def test_coco_and_voc_layouts_of_the_same_scenes_agree(scenes: Path, tmp_path: Path):
    voc = load_voc(scenes, "trainval", "test")
    coco = load_coco(write_coco(scenes, tmp_path / "coco"), "train2017", "val2017")
    for ours, theirs in zip(voc.train + voc.test, coco.train + coco.test, strict=True):
        assert int(ours.image_id) == int(theirs.image_id)
        assert ours.boxes.tolist() == theirs.boxes.tolist()
        assert [voc.class_names[i - 1] for i in ours.labels] == [coco.class_names[i - 1] for i in theirs.labels]


def test_coco_ap_of_the_truth_is_100_and_of_nothing_0(scenes: Path, tmp_path: Path):
    pytest.importorskip("pycocotools")
    data = load_coco(write_coco(scenes, tmp_path / "coco"), "train2017", "val2017")
    truth = {i.image_id: Detections(i.boxes, np.ones(len(i.boxes)), i.labels) for i in data.test}
    assert coco_scores(data.annotations, truth)["AP"] == pytest.approx(100)
    assert coco_scores(data.annotations, {})["AP"] == 0
    shifted = {k: Detections(d.boxes + 1000, d.scores, d.labels) for k, d in truth.items()}
    assert coco_scores(data.annotations, shifted)["AP"] == pytest.approx(0)


def test_crowds_are_not_trained_on(scenes: Path, tmp_path: Path):
    folder = write_coco(scenes, tmp_path / "coco")
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    data = load_coco(folder, "train2017", "val2017")
    assert sum(len(image.boxes) for image in data.train) == len(content["annotations"]) - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.clear(), "categories"),
        (lambda content: content["images"].clear(), "0 images"),
        (lambda content: content["images"][0].update(file_name="../../a.jpg"), "outside"),
        (lambda content: content["images"][0].update(width=0), "is 0x"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3]), "four finite"),
        (lambda content: content["annotations"][0].update(category_id=99), "99"),
        (lambda content: content["categories"].pop(), "different categories|instances file"),
    ],
)
def test_a_wrong_coco_file_is_refused(scenes: Path, tmp_path: Path, change, message: str):
    folder = write_coco(scenes, tmp_path / "coco")
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        load_coco(folder, "train2017", "val2017")


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
    for batch in itertools.islice(grouped_batches(images, batch=4, seed=0, rank=0, world_size=1), 30):
        assert len(batch) == 4 and len({images[index].width > images[index].height for _, index in batch}) == 1


def test_processes_share_one_stream_in_which_every_image_comes_once_per_pass():
    images = some_images(12)
    streams = [grouped_batches(images, batch=1, seed=3, rank=rank, world_size=2) for rank in range(2)]
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
