"""The official recipe of views on Pillow images, restated: the oracle of the tests and the baseline of the benchmark.

Follows zdaxie/PixPro, contrast/data/transform.py (BYOL) and transform_coord.py in distribution, not in its draws.
"""

import random

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms as T
from torchvision.transforms import functional as TF

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


class OfficialViews:
    """Pillow image -> both views (3, S, S) float32, normalised, and their boxes (4,)."""

    def __init__(self, image_size: int = 224) -> None:
        self.image_size = image_size
        self.colours = (self._colours(blur=1.0, solarize=0.0), self._colours(blur=0.1, solarize=0.2))

    @staticmethod
    def _colours(blur: float, solarize: float) -> T.Compose:
        return T.Compose(
            [
                T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                T.RandomGrayscale(p=0.2),
                T.RandomApply([_blur], p=blur),
                T.RandomApply([ImageOps.solarize], p=solarize),
                T.ToTensor(),
                T.Normalize(MEAN, STD),
            ]
        )

    def crop(self, image: Image.Image) -> tuple[Image.Image, Tensor]:
        """A random resized crop, maybe flipped, and its box."""
        width, height = image.size
        top, left, h, w = T.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        box = [left / (width - 1), top / (height - 1), (left + w - 1) / (width - 1), (top + h - 1) / (height - 1)]
        size = [self.image_size, self.image_size]
        view = TF.resized_crop(image, top, left, h, w, size, T.InterpolationMode.BILINEAR)
        if random.random() < 0.5:
            view, box = TF.hflip(view), [box[2], box[1], box[0], box[3]]
        return view, torch.tensor(box)

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (view1, box1), (view2, box2) = self.crop(image), self.crop(image)
        return self.colours[0](view1), self.colours[1](view2), box1, box2
