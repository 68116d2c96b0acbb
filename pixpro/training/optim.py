"""LARS, and which parameters it adapts and decays."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups of trainable parameters: matrices and kernels (decayed, adapted), and 1-D ones (neither).

    In this order, each a dictionary with `params`, `weight_decay` and `adapt`, as `LARS` takes them; AdamW and SGD of
    torch ignore `adapt`. 1-D parameters are those of BatchNorm and all biases. `add_weight_decay` of the official code.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay, "adapt": True},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0, "adapt": False},
    ]


def make_optimizer(
    name: str, model: nn.Module, *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimizer of a name, lars, sgd or adamw, for a model's trainable parameters.

    momentum: for adamw its first coefficient; the second is 0.999.
    """
    if name == "lars":
        return LARS(parameter_groups(model, weight_decay), lr, momentum)
    if name == "adamw":
        return torch.optim.AdamW(parameter_groups(model, weight_decay), lr, betas=(momentum, 0.999))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trainable, lr, momentum, weight_decay=weight_decay)


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose gradients are scaled, tensor by tensor, to the size of the weights.

    For groups with `adapt`: g <- g + weight_decay * w, then g <- g * trust_coefficient * |w| / (|g| + eps), unscaled
    where either norm is zero; then momentum and step as in SGD. arXiv:1708.03888 in the form of the official code:
    the ratio sees the decayed gradient.

    params: of `parameter_groups`, or any parameters, all of which are adapted then. lr: of the whole batch, set anew
    before each step by those who follow a schedule. `ratios`: of the last step, (number of tensors,) for each adapted
    group. A parameter without gradient is left as it is.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        eps: float = 1e-8,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "adapt": True,
        }
        super().__init__(params, defaults)
        self.ratios: list[Tensor] = []  # of the last step, for each group with `adapt`: on the device, for reports

    @torch.no_grad()
    def step(  # type: ignore[override]  # the stubs promise a float; what closures return is a tensor
        self, closure: Callable[[], Tensor] | None = None
    ) -> Tensor | None:
        """One update of all parameters that have a gradient; returns the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.ratios = []
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        if group["weight_decay"] != 0:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        for param, grad in zip(params, grads, strict=True):
            if "momentum_buffer" not in self.state[param]:
                self.state[param]["momentum_buffer"] = torch.zeros_like(grad)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        if group["adapt"]:
            ratios = trust_ratios(params, grads, group["trust_coefficient"], group["eps"])
            self.ratios.append(ratios)
            # One by one: no foreach call takes a number on the device for each tensor. The gradients stay as they are.
            for buffer, grad, ratio in zip(buffers, grads, ratios.unbind(), strict=True):
                buffer.addcmul_(grad, ratio)
        else:
            torch._foreach_add_(buffers, grads)
        torch._foreach_add_(params, buffers, alpha=-group["lr"])


def trust_ratios(params: list[Tensor], grads: list[Tensor], trust_coefficient: float, eps: float) -> Tensor:
    """Scale of each tensor's gradient: (number of tensors,); 1 where a norm is zero. No host synchronisation."""
    param_norms = torch.stack(torch._foreach_norm(params))
    grad_norms = torch.stack(torch._foreach_norm(grads))
    ratios = trust_coefficient * param_norms / (grad_norms + eps)
    return torch.where((param_norms > 0) & (grad_norms > 0), ratios, torch.ones_like(ratios))
