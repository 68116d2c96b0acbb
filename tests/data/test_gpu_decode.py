"""Decoding on the device gives the views of the workers; run on the CPU here, where the same code decodes exactly."""

import pytest
import torch
from PIL import Image

from pixpro.data import Loader, gpu_decode
from pixpro.images import open_images
from tests.helpers import pictures


@pytest.fixture
def root(tmp_path):
    """Plain JPEG files, a turned one, a grey one, a PNG."""
    root = pictures.folder(tmp_path / "data", 9)
    exif = Image.Exif()
    exif[0x112] = 6
    (root / "turned.jpg").write_bytes(pictures.encoded(pictures.texture(40, 60), "JPEG", exif=exif))
    exif[0x112] = 1
    (root / "upright.jpg").write_bytes(pictures.encoded(pictures.texture(40, 60), "JPEG", exif=exif))
    (root / "grey.jpg").write_bytes(pictures.encoded(pictures.texture(40, 60).convert("L"), "JPEG"))
    (root / "other.png").write_bytes(pictures.encoded(pictures.texture(40, 60), "PNG"))
    return root


def epoch(root, device, workers=0):
    return list(
        Loader(
            open_images([root]), batch_size=4, image_size=32, max_bad=1, workers=workers, decode_on=torch.device(device)
        )
        if device
        else Loader(open_images([root]), batch_size=4, image_size=32, max_bad=1)
    )


def assert_same(batches, expected, levels):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        for view, wanted in zip(batch[:2], other[:2], strict=True):
            assert torch.equal(view.box, wanted.box)
            assert view.pixels.is_contiguous(memory_format=torch.channels_last)
            difference = view.pixels.cpu().int() - wanted.pixels.int()
            assert difference.abs().max() <= levels
        for tensor, wanted in zip(batch[2:], other[2:], strict=True):
            assert torch.equal(tensor, wanted)


@pytest.mark.parametrize("workers", [0, 1])
def test_views_are_those_of_the_workers(root, workers):
    assert_same(epoch(root, "cpu", workers), epoch(root, None), levels=1)


def test_files_that_turn_out_bad_on_the_device_are_replaced_as_always(root):
    path = root / "003.jpg"
    path.write_bytes(path.read_bytes()[:-300])  # its header is good, so the worker does not notice
    (root / "004.jpg").write_bytes(b"")
    expected = epoch(root, None)
    assert sum(int(batch.replaced.sum()) for batch in expected) >= 1
    assert_same(epoch(root, "cpu"), expected, levels=1)


def test_files_that_only_the_cpu_can_decode_are_decoded_by_it_and_counted(root, monkeypatch):
    expected = epoch(root, None)
    grey, whole = (root / "grey.jpg").read_bytes(), gpu_decode.decode_jpegs

    def but_for_grey(files, device):
        if any(file.numpy().tobytes() == grey for file in files):
            raise RuntimeError("unsupported subsampling")
        return whole(files, device)

    monkeypatch.setattr(gpu_decode, "decode_jpegs", but_for_grey)
    with pytest.warns(UserWarning) as told:
        assert_same(epoch(root, "cpu"), expected, levels=1)
    texts = [str(each.message) for each in told]
    assert len(texts) == 2 and "unsupported subsampling" in texts[0] and "1 of 12 images" in texts[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_views_decoded_by_a_gpu_are_close(root):
    assert_same(epoch(root, "cuda"), epoch(root, None), levels=24)
