"""One direction of each loss: between cells, as pure functions, and between the two views of an image as wholes.

Cells are features along the last axes, L2-normalised over C by the caller: (B, C, H, W) or (B, C, N).
Rows of `positives` are cells of the prediction, columns cells of the target.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from pixpro.method.heads import ConvHead
from pixpro.method.numerics import at_least_float32, full_precision

INSTANCE_LOSSES = ("regression", "contrast")


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


def pooled(features: Tensor) -> Tensor:
    """The L2-normalised mean over the whole map, whatever its size: (B, C, H, W) -> (B, C)."""
    return F.normalize(at_least_float32(features).mean(dim=(2, 3)), dim=1)


class InstanceRegression(nn.Module):
    """BYOL-like loss of the official code: -2 x mean cosine of predicted and momentum vectors, one direction.

    The predictor works on the map and pooling follows it, as in the official code.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.predictor = ConvHead(dim, hidden_dim, dim)

    def forward(self, online: Tensor, target: Tensor) -> Tensor:
        """online, target: (B, C, H, W) projected maps of the two views, the target's without gradient."""
        prediction = self.predictor(online)
        with full_precision(online.device):
            return -2 * (pooled(prediction) * pooled(target)).sum(dim=1).mean()


class InstanceContrast(nn.Module):
    """SimCLR-like loss with momentum keys: mean of -log(share of the image's own key among all keys), one direction.

    A query's keys are the momentum vectors of the other view of every image of the step, over all processes; an
    image's mass is exp(cosine / temperature). The paper's branch (arXiv:2011.10043) is SimCLR with momentum keys and
    weight 1; the official code never had it. Our choices: no predictor, pooling after the projector as in the official
    branch, no keys from the query's own view, both directions added, the temperature's default.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, online: Tensor, target: Tensor) -> Tensor:
        """online, target: (B, C, H, W) as in InstanceRegression; every process brings the same B.

        Only local queries carry gradients, so the mean over processes is the loss, and the mean of their gradients
        (what DistributedDataParallel makes) the gradient, of one process with all images.
        """
        with full_precision(online.device):
            queries, keys = pooled(online), pooled(target)
            keys, first = gather_keys(keys)
            own = torch.arange(first, first + len(queries), device=queries.device)
            return F.cross_entropy(queries @ keys.T / self.temperature, own)


def gather_keys(keys: Tensor) -> tuple[Tensor, int]:
    """The keys (B, C) of all processes in rank order, (W * B, C), without gradient, and the row of ours among them."""
    if not dist.is_initialized():
        return keys.detach(), 0
    everyone = [torch.empty_like(keys) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, keys.detach().contiguous())
    return torch.cat(everyone), dist.get_rank() * len(keys)


def instance_branch(form: str, dim: int, hidden_dim: int, temperature: float) -> nn.Module:
    """The loss of that form, a module; `dim` and `hidden_dim` shape the predictor of "regression"."""
    if form not in INSTANCE_LOSSES:
        raise ValueError(f"unknown instance loss {form!r}; expected one of {', '.join(INSTANCE_LOSSES)}")
    return InstanceContrast(temperature) if form == "contrast" else InstanceRegression(dim, hidden_dim)
