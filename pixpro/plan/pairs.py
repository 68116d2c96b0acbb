"""The sizes of a sample of the images -> the share of positive pairs to expect of them."""

import torch

from pixpro.data.views import Distance
from pixpro.errors import UserError
from pixpro.images import Images
from pixpro.images.sample import sample_images
from pixpro.plan.check import expected_pairs

SAMPLED = 256  # images whose sizes stand for all


def image_sizes(source: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Heights and widths of a sample of the readable images; UserError when none is."""
    sizes = [image.shape[1:] for image in sample_images(source, SAMPLED)]
    if not sizes:
        tried = min(SAMPLED, len(source))
        raise UserError(f"none of {tried} images could be read; python -m pixpro check tells why")
    heights, widths = torch.tensor(sizes).unbind(1)
    return heights, widths


def pairs_line(source: Images, *, distance: Distance, cells: int, threshold: float, crop_min: float) -> str:
    """Expected share of positive pairs on this data set, in words."""
    heights, widths = image_sizes(source)
    positives, apart = expected_pairs(heights, widths, distance, cells, threshold, crop_min)
    return (
        f"{positives * cells**4:.1f} of the {cells**4} cell pairs of an image ({positives:.2%}), "
        f"none in {apart:.1%} of the crop pairs (from the sizes of {len(heights)} images)"
    )
