"""Frozen features with labels -> scores of new features: nearest neighbours and a linear classifier."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)


def knn_scores(
    bank: Tensor, labels: Tensor, queries: Tensor, neighbours: int = 20, temperature: float = 0.07
) -> Tensor:
    """Weighted votes of the nearest bank entries: (Q, K), rows sum to 1.

    bank: (n, C), queries: (Q, C), compared by cosine. labels: (n, K), each row a distribution over classes.
    A neighbour's vote weighs exp(cosine / temperature), as in arXiv:1805.01978.
    """
    bank = F.normalize(bank, dim=1)
    scores = []
    for part in F.normalize(queries, dim=1).split(1024):
        cosine, index = (part @ bank.T).topk(min(neighbours, len(bank)), dim=1)
        weights = ((cosine - cosine[:, :1]) / temperature).exp()
        votes = (weights[:, :, None] * labels[index]).sum(dim=1)
        scores.append(votes / votes.sum(dim=1, keepdim=True))
    return torch.cat(scores)


class LinearProbe:
    """Multinomial logistic regression on standardised features, solved to convergence."""

    def __init__(self, features: Tensor, labels: Tensor, penalty: float, start: "LinearProbe | None" = None) -> None:
        """features: (n, C); labels: (n, K) distributions; penalty x |weights|^2 / 2 is added to the mean loss."""
        self.mean = features.mean(dim=0)
        self.scale = features.std(dim=0, correction=0).clamp(min=1e-6)
        x, labels = self._standardised(features), labels.to(features.dtype)
        classes = labels.shape[1]
        self.weight = x.new_zeros(classes, x.shape[1]) if start is None else start.weight.detach().clone()
        self.bias = x.new_zeros(classes) if start is None else start.bias.detach().clone()
        parameters = [self.weight.requires_grad_(), self.bias.requires_grad_()]
        solver = torch.optim.LBFGS(
            parameters, max_iter=100, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            loss = F.cross_entropy(F.linear(x, self.weight, self.bias), labels)
            loss = loss + penalty / 2 * self.weight.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            solver.step(closure)
        self.weight, self.bias = self.weight.detach(), self.bias.detach()

    def _standardised(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (n, K)."""
        return F.linear(self._standardised(features), self.weight, self.bias)


def fit_linear(features: Tensor, labels: Tensor, seed: int, penalties: Sequence[float] = PENALTIES) -> LinearProbe:
    """The probe on all features, with the penalty that does best on a fifth of them held out by the seed."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed)).to(features.device)
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    if len(held) == 0 or len(penalties) == 1:
        return LinearProbe(features, labels, penalties[0])
    probe, losses = None, []
    for penalty in penalties:  # from strong to weak, each starting from the one before
        probe = LinearProbe(features[kept], labels[kept], penalty, probe)
        losses.append(F.cross_entropy(probe(features[held]), labels[held].to(features.dtype)))
    return LinearProbe(features, labels, penalties[torch.stack(losses).argmin().item()])


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows of scores (n, K) whose largest entry is at the label (n,)."""
    return (scores.argmax(dim=1) == labels).double().mean().item()
