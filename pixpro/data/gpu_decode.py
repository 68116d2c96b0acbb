"""The other half of the pipeline when the GPU decodes (nvJPEG): workers only read and draw, the device crops.

For machines with fewer than about three cores per GPU. nvJPEG rounds colours differently from libjpeg-turbo, so views
differ by a few 8-bit levels from those of the workers; crops, boxes and colours are the same.
"""

import io
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pixpro.data.samples import Batch, Key, Samples
from pixpro.data.views import View
from pixpro.errors import BadImage
from pixpro.images.decoding import MAX_PIXELS, check_size, decode
from pixpro.images.jpeg import decoder_for, jpeg_header


class Encoded(NamedTuple):
    """A micro-batch whose images are still encoded where the device can decode them."""

    data: Tensor  # bytes of all images, one after the other
    ends: Tensor  # (B,) where each ends
    sizes: Tensor  # (B, 2) height and width
    decoded: Tensor  # (B,) bool: these bytes are pixels (3, H, W) already
    crops: Tensor  # (2, B, 4) top, left, height, width of both views
    flips: Tensor  # (2, B) bool
    boxes: Tensor  # (2, B, 4)
    colours: Tensor  # (2, B, 8)
    keys: Tensor  # (B, 2) epoch, index
    replaced: Tensor  # (B,) bool


class EncodedSamples(Samples):
    """Micro-batches by their keys, with plain JPEG files as they are and everything else decoded."""

    def __getitems__(self, keys: list[Key]) -> Encoded:  # type: ignore[override]  # read by `Finished` alone
        images, replaced = zip(*(self.load(*key, decode=size_of) for key in keys), strict=True)
        parts, sizes, decoded = zip(*images, strict=True)
        drawn = [[self.draw(*key, role, *size) for key, size in zip(keys, sizes, strict=True)] for role in range(2)]
        crops, flips, boxes, colours = (torch.tensor([[d[i] for d in view] for view in drawn]) for i in range(4))
        return Encoded(
            torch.cat(parts),
            torch.tensor([len(part) for part in parts]).cumsum(0),
            torch.tensor(sizes),
            torch.tensor(decoded),
            crops,
            flips,
            boxes,
            colours,
            torch.tensor(keys),
            torch.tensor(replaced),
        )


def size_of(data: bytes) -> tuple[Tensor, tuple[int, int], bool]:
    """(bytes, (height, width), whether they are pixels already); raises BadImage like `decode`."""
    if data[:2] == b"\xff\xd8":
        (width, height), channels, exif, _ = jpeg_header(data)
        check_size((width, height), MAX_PIXELS)
        if channels in (1, 3) and (not exif or upright(data)):
            return torch.frombuffer(bytearray(data), dtype=torch.uint8), (height, width), False
    pixels = decode(data)
    return pixels.flatten(), (pixels.shape[1], pixels.shape[2]), True


def upright(data: bytes) -> bool:
    """Whether a JPEG with EXIF data needs no turning."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return image.getexif().get(0x0112, 1) == 1
    except Exception:  # damaged; `decode` will say how
        return False


class Finished:
    """Iterates over encoded micro-batches, decoded and cropped on the device, on the stream that is current then.

    by_cpu: files so far that the device could not decode and the CPU, in this process, had to.
    """

    def __init__(self, batches: Iterable[Encoded], samples: EncodedSamples, device: torch.device) -> None:
        self.batches, self.samples, self.device = batches, samples, device
        self.by_cpu = 0

    def __iter__(self) -> Iterator[Batch]:
        seen, before = 0, self.by_cpu
        for batch in self.batches:
            seen += len(batch.ends)
            yield self.finish(batch)
        if self.by_cpu > before:
            told = (
                f"{self.by_cpu - before} of {seen} images were decoded by the CPU, as the GPU could not: they are slow"
            )
            warnings.warn(told, stacklevel=2)

    def finish(self, batch: Encoded) -> Batch:
        """The views of an encoded micro-batch, on the device; replacements, where a file is bad, by the CPU."""
        try:
            images, by_cpu = decode_on(batch, self.device)
        except BadImage:
            return Samples.__getitems__(self.samples, [tuple(key) for key in batch.keys.tolist()])
        if by_cpu and not self.by_cpu:
            warnings.warn(f"the GPU cannot decode some files ({by_cpu[0]}); the CPU does", stacklevel=2)
        self.by_cpu += len(by_cpu)
        views = []
        for crops, flips, boxes in zip(batch.crops.tolist(), batch.flips.tolist(), batch.boxes, strict=True):
            samples = zip(images, crops, flips, strict=True)
            pixels = [crop_on_device(*sample, self.samples.image_size) for sample in samples]
            views.append(View(torch.stack(pixels).contiguous(memory_format=torch.channels_last), boxes))
        return Batch(views[0], views[1], batch.colours[0], batch.colours[1], batch.keys[:, 1], batch.replaced)


def decode_on(batch: Encoded, device: torch.device) -> tuple[list[Tensor], list[str]]:
    """The images (3, H, W) uint8 on the device, and why it could not decode some, which the CPU did.

    BadImage for one that is damaged or of another size than its header announced.
    """
    parts = batch.data.tensor_split(batch.ends[:-1])
    sizes, decoded = batch.sizes.tolist(), batch.decoded.tolist()
    encoded = [part for part, done in zip(parts, decoded, strict=True) if not done]
    fresh, reasons = decode_each(encoded, device)
    rest = iter(fresh)
    images = [
        part.view(3, *size).to(device) if done else next(rest)
        for part, size, done in zip(parts, sizes, decoded, strict=True)
    ]
    if any(list(image.shape[1:]) != size for image, size in zip(images, sizes, strict=True)):
        raise BadImage("an image of another size than its header announced")
    return images, reasons


def decode_each(files: list[Tensor], device: torch.device) -> tuple[list[Tensor], list[str]]:
    """All files decoded, together or, when one stops the others, each alone; and why the device could not, by file."""
    try:
        return (decode_jpegs(files, device) if files else []), []
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
    images, reasons = [], []
    for file in files:
        try:
            images += decode_jpegs([file], device)
        except RuntimeError as error:
            images.append(decode(file.numpy().tobytes()).to(device))
            reasons.append(" ".join(str(error).split())[:120])
    return images, reasons


def decode_jpegs(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """RGB pixels of JPEG files by what decodes them on this device."""
    found = decoder_for(device)
    assert found is not None, "the loader asks first"
    return found[1](files, device)


def crop_on_device(image: Tensor, crop: list[int], flip: bool, size: int) -> Tensor:
    """`views.crop_pixels` for any device, (3, size, size) uint8."""
    top, left, h, w = crop
    pixels = image[None, :, top : top + h, left : left + w].float()
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    return (resized.flip(2) if flip else resized).round_().clamp_(0, 255).to(torch.uint8)
