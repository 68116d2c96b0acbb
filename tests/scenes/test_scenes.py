"""The sample scenes: real files in VOC's and COCO's layout, the same every time, whole or repaired."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from pixpro.errors import UserError
from pixpro.scenes import CLASSES, sample_scenes, write_scenes
from pixpro.scenes.coco import outlines, write_coco
from pixpro.scenes.drawing import draw_scene
from pixpro.scenes.files import VOID, describe_objects, voc_palette


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "voc", 12, seed=3, held_out=4)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def split(folder, name, task="Main"):
    return (folder / "ImageSets" / task / f"{name}.txt").read_text().split()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_pictures(folder, tmp_path):
    again = contents(write_scenes(tmp_path / "again", 12, seed=3, held_out=4))
    assert again == contents(folder)
    other = contents(write_scenes(tmp_path / "other", 12, seed=4, held_out=4))
    pictures = [path for path in again if path.parts[0] == "JPEGImages"]
    assert len(pictures) == 12
    assert all(again[path] != other[path] for path in pictures)


def test_a_scene_does_not_depend_on_how_many_are_drawn(folder, tmp_path):
    more = write_scenes(tmp_path / "more", 14, seed=3, held_out=4)
    name = "JPEGImages/000005.jpg"
    assert (more / name).read_bytes() == (folder / name).read_bytes()


def test_pictures_are_jpegs_of_varied_sizes_and_shapes(folder):
    sizes = set()
    for path in sorted((folder / "JPEGImages").iterdir()):
        with Image.open(path) as image:
            assert image.format == "JPEG" and image.mode == "RGB"
            assert all(200 <= side <= 400 for side in image.size)
            assert np.asarray(image, np.float32).std() > 15
            sizes.add(image.size)
    ratios = [width / height for width, height in sizes]
    assert len(sizes) >= 6 and max(ratios) > 1.15 and min(ratios) < 0.9


def test_held_out_scenes_are_in_no_training_split(folder):
    train, val, trainval, test = (split(folder, name) for name in ("train", "val", "trainval", "test"))
    assert len(test) == 4 and len(trainval) == 8
    assert sorted(train + val) == trainval and len(val) >= 2 and len(train) >= 2
    assert not set(test) & set(trainval)
    assert sorted(path.stem for path in (folder / "train").iterdir()) == trainval
    assert sorted(path.stem for path in (folder / "held_out").iterdir()) == test
    assert split(folder, "test", "Segmentation") == test


def test_every_split_of_the_smallest_folder_has_two_scenes(tmp_path):
    folder = write_scenes(tmp_path / "small", 6)
    assert all(len(split(folder, name)) >= 2 for name in ("train", "val", "trainval", "test"))


def test_boxes_enclose_exactly_the_visible_pixels_of_their_object(folder):
    difficult = truncated = total = 0
    for path in sorted((folder / "Annotations").iterdir()):
        root = ElementTree.parse(path).getroot()
        classes = np.asarray(Image.open(folder / "SegmentationClass" / f"{path.stem}.png"))
        instances = np.asarray(Image.open(folder / "SegmentationObject" / f"{path.stem}.png"))
        assert classes.shape == (int(root.findtext("size/height")), int(root.findtext("size/width")))
        assert root.findtext("filename") == f"{path.stem}.jpg"
        objects = root.findall("object")
        assert objects and set(np.unique(instances)) - {0, VOID} == set(range(1, len(objects) + 1))
        for number, element in enumerate(objects, start=1):
            y, x = np.nonzero(instances == number)
            box = [int(element.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
            assert box == [x.min() + 1, y.min() + 1, x.max() + 1, y.max() + 1]
            assert set(classes[y, x]) == {CLASSES.index(element.findtext("name")) + 1}
            assert element.findtext("pose") == "Unspecified"
            difficult += int(element.findtext("difficult"))
            truncated += int(element.findtext("truncated"))
            total += 1
    assert 0 < truncated < total and difficult < total / 2


def test_hidden_objects_are_void_and_have_no_box():
    scene = draw_scene(0, 1)
    hidden = scene._replace(instances=np.where(scene.instances == 1, 0, scene.instances))
    hidden.instances[0, :5] = 1
    objects, classes, instances = describe_objects(hidden)
    assert (classes[0, :5] == VOID).all() and (instances[0, :5] == VOID).all()
    assert len(objects) == len(set(np.unique(hidden.instances)) - {0}) - 1


def test_all_classes_appear_and_masks_use_vocs_colours(folder):
    seen = set()
    for path in (folder / "SegmentationClass").iterdir():
        with Image.open(path) as mask:
            assert mask.mode == "P"
            seen |= set(np.unique(np.asarray(mask)))
    assert seen - {VOID} == set(range(len(CLASSES) + 1))
    # the first colours of VOC's colour map: black, maroon, green, olive, navy; void is cream
    assert voc_palette()[:15] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]
    assert voc_palette()[-3:] == [224, 224, 192]


def test_a_complete_folder_is_not_written_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_scenes(folder, 12, seed=3, held_out=4) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_damage_is_repaired_and_other_files_are_kept(folder, tmp_path):
    whole = contents(folder)
    broken = write_scenes(tmp_path / "broken", 12, seed=3, held_out=4)
    (broken / "JPEGImages" / "000002.jpg").write_bytes(b"")
    (broken / "Annotations" / "000003.xml").unlink()
    same_size = bytearray((broken / "held_out" / "000012.jpg").read_bytes())
    same_size[500] ^= 255
    (broken / "held_out" / "000012.jpg").write_bytes(same_size)
    (broken / "notes.txt").write_text("mine")
    write_scenes(broken, 12, seed=3, held_out=4)
    assert contents(broken) == whole | {type(next(iter(whole)))("notes.txt"): b"mine"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"scenes": 1}', '{"scenes": 1, "files": []}'])
def test_an_unreadable_list_of_files_is_written_again(folder, tmp_path, content):
    broken = write_scenes(tmp_path / "broken", 6, held_out=2)
    whole = contents(broken)
    (broken / "scenes.json").write_text(content)
    (broken / "JPEGImages" / "000001.jpg").unlink()
    write_scenes(broken, 6, held_out=2)
    assert contents(broken) == whole


def test_folders_with_other_things_in_them_are_refused_untouched(folder, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="does not hold sample scenes"):
        write_scenes(tmp_path, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
    with pytest.raises(UserError, match="other scenes"):
        write_scenes(folder, 13, seed=3, held_out=4)


@pytest.mark.parametrize(("count", "held_out"), [(5, None), (6, 3), (6, 1), (0, None)])
def test_too_few_scenes_for_the_splits_are_refused(tmp_path, count, held_out):
    with pytest.raises(UserError, match="at least 2 held out"):
        write_scenes(tmp_path / "none", count, held_out=held_out)
    assert not list(tmp_path.iterdir())


def test_the_cache_goes_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "cache"))
    folder = sample_scenes(6, seed=1, held_out=2)
    assert folder.parent == tmp_path / "cache" and len(list((folder / "train").iterdir())) == 4
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_unusable_cache_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIXPRO_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="PIXPRO_CACHE"):
        sample_scenes(6, held_out=2)


def test_outlines_follow_the_edges_of_pixels():
    mask = np.zeros((6, 7), bool)
    mask[1:3, 2:5] = True
    mask[2:5, 2] = True
    (polygon,) = outlines(mask)
    corners = {(x, y) for x, y in zip(polygon[::2], polygon[1::2], strict=True)}
    assert corners == {(2, 1), (5, 1), (5, 3), (3, 3), (3, 5), (2, 5)}


def test_outlines_fill_holes_and_part_at_corners():
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert len(outlines(ring)) == 1 and len(outlines(ring)[0]) == 8
    diagonal = np.eye(3, dtype=bool)
    assert sorted(len(polygon) for polygon in outlines(diagonal)) == [8, 8, 8]


def test_coco_annotations_cover_the_instances(folder, tmp_path):
    mask_tools = pytest.importorskip("pycocotools.mask")
    coco = write_coco(folder, tmp_path / "coco")
    for target, name in (("train2017", "trainval"), ("val2017", "test")):
        content = json.loads((coco / "annotations" / f"instances_{target}.json").read_text())
        assert [image["file_name"] for image in content["images"]] == [f"{i}.jpg" for i in split(folder, name)]
        assert [category["name"] for category in content["categories"]] == list(CLASSES)
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        assert len({annotation["id"] for annotation in content["annotations"]}) == len(content["annotations"])
        for annotation in content["annotations"]:
            height, width = sizes[annotation["image_id"]]
            runs = mask_tools.merge(mask_tools.frPyObjects(annotation["segmentation"], height, width))
            covered = mask_tools.decode(runs)
            y, x = np.nonzero(covered)
            left, top, wide, tall = annotation["bbox"]
            edges = np.array([x.min() - left, y.min() - top, x.max() + 1 - left - wide, y.max() + 1 - top - tall])
            assert np.abs(edges).max() <= 1
            path = folder / "SegmentationObject" / f"{annotation['image_id']:06d}.png"
            instances = np.asarray(Image.open(path))
            number = np.bincount(instances[covered > 0], minlength=256)[1:VOID].argmax() + 1
            missed = (instances == number) & (covered == 0)
            assert missed.sum() <= 0.02 * annotation["area"] + 2
