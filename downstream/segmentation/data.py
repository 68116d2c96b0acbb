"""Image and mask files -> training crops, scaled and flipped together, and whole test images."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from downstream.common.pictures import read_picture
from downstream.detection.data import as_tensor
from downstream.segmentation.labels import SegmentationSet
from downstream.segmentation.masks import VOID, MaskedImage, read_mask
from pixpro.errors import UserError

PADDING = (124, 116, 104)  # ImageNet's mean colour: zero after normalisation


class TrainCrops(Dataset):
    """(position in the run, index) -> (pixels (3, S, S) uint8, {mask: (S, S) uint8}), a function of the position."""

    def __init__(self, data: SegmentationSet, *, crop: int, seed: int) -> None:
        self.data, self.crop, self.seed = data, crop, seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The image scaled by 0.5 to 2, cropped (padded where it is too small), flipped in half the cases."""
        position, index = item
        random = np.random.default_rng((self.seed, position))
        pixels, mask = read_pair(self.data.train[index], self.data)
        scale = random.uniform(0.5, 2.0)
        size = tuple(max(1, round(side * scale)) for side in (pixels.shape[1], pixels.shape[0]))
        larger = tuple(max(side, self.crop) for side in size)
        canvas, labels = Image.new("RGB", larger, PADDING), Image.new("L", larger, VOID)
        canvas.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        labels.paste(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        top, left = (int(random.integers(side - self.crop + 1)) for side in reversed(larger))
        box = (left, top, left + self.crop, top + self.crop)
        pixels, mask = np.array(canvas.crop(box)), np.array(labels.crop(box))
        if random.random() < 0.5:
            pixels, mask = pixels[:, ::-1], mask[:, ::-1]
        return as_tensor(pixels), {"mask": torch.from_numpy(np.ascontiguousarray(mask))}


class WholeImages(Dataset):
    """Index -> (pixels (3, H, W) uint8, mask (H, W) uint8) of a test image."""

    def __init__(self, data: SegmentationSet) -> None:
        self.data = data

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels, mask = read_pair(self.data.test[index], self.data)
        return as_tensor(pixels), torch.from_numpy(np.ascontiguousarray(mask))


def read_pair(pair: MaskedImage, data: SegmentationSet) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (H, W, 3) and classes (H, W), uint8; UserError for damaged files or pairs that do not fit."""
    pixels = read_picture(pair.image).permute(1, 2, 0).numpy()
    values = read_mask(pair.mask)
    if values.shape != pixels.shape[:2]:
        raise UserError(f"{pair.mask} is {values.shape[::-1]}, its image {pixels.shape[1::-1]}; expected the same size")
    classes = data.classes[values]
    if (classes < 0).any():
        strange = values[classes < 0].max()
        raise UserError(f"{pair.mask} has the value {strange}, which is no class of this data set")
    return np.ascontiguousarray(pixels), classes.astype(np.uint8)
