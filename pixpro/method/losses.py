"""(prediction, target, positives) -> scalar: one direction of each loss, as pure functions.

Features are cells along the last axes, L2-normalised over C by the caller: (B, C, H, W) or (B, C, N).
Rows of `positives` are cells of the prediction, columns cells of the target.
"""

import torch
from torch import Tensor


def consistency_loss(prediction: Tensor, target: Tensor, positives: Tensor) -> Tensor:
    """PixPro loss: -2 x mean over images of the mean cosine of the positive pairs; in [-2, 2].

    An image without positives contributes zero and stays in the mean. `regression_loss` of the official code, whose
    float32 denominator (pairs + 1e-6) is kept also for float64 features.
    """
    prediction, target = prediction.flatten(2), target.flatten(2)
    # Sum over each cell's positives first: as targets carry no gradient, autograd then keeps no (B, N, N) tensor.
    matched = torch.bmm(target, positives.to(target.dtype).transpose(1, 2))
    cosine = (prediction * matched).sum(dim=(1, 2))
    pairs = positives.sum(dim=(1, 2)).float() + 1e-6
    return -2 * (cosine / pairs).mean()


def contrast_loss(
    prediction: Tensor, target: Tensor, positives: Tensor, inside: Tensor, temperature: float = 0.3
) -> Tensor:
    """PixContrast loss: mean over images of the mean over cells of -log(positive mass / total mass).

    The masses of a cell are sums of exp(cosine / temperature) over the cells of the other view of the same image:
    its positives, and all. Only cells `inside` (B, N) the other view count, and among them those with a positive;
    an image without any contributes zero and stays in the mean. arXiv:2011.10043 section 3.1, equation 2.
    """
    prediction, target = prediction.flatten(2), target.flatten(2)
    logits = torch.bmm(prediction.transpose(1, 2), target) / temperature
    counted = inside & positives.any(dim=2)
    # Rows that do not count have no positives to sum over: give them all cells, hence a loss of exactly zero.
    chosen = positives | ~counted[:, :, None]
    per_cell = logits.logsumexp(dim=2) - logits.masked_fill(~chosen, -torch.inf).logsumexp(dim=2)
    per_cell = per_cell * counted
    return (per_cell.sum(dim=1) / counted.sum(dim=1).clamp(min=1)).mean()
