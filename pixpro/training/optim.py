"""LARS, which parameters it adapts and decays, and which backbones an optimizer does not suit."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pixpro.method.encoder import Encoder

ADAMW = "--optimizer adamw --lr_base 0.0005 --weight_decay 0.05"
LARGEST_ADAMW_LR = 0.01  # per 256 images; recipes have 0.00015 to 0.001, those of LARS and SGD 0.03 and more


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


def pairing_warnings(encoder: Encoder, optimizer: str, lr_base: float) -> str:
    """What is wrong with an encoder's trunk and an optimizer as a pair, in lines; "" where nothing is."""
    warnings = []
    if optimizer != "adamw" and normalises_cells(getattr(encoder, "trunk", None)):
        warnings.append(
            f"{encoder.arch} normalises by LayerNorm, and --optimizer {optimizer} is for backbones with BatchNorm; "
            f"try {ADAMW}, as such backbones are trained elsewhere"
        )
    if optimizer == "adamw" and lr_base > LARGEST_ADAMW_LR:
        warnings.append(
            f"--optimizer adamw with --lr_base {lr_base:g}: its steps are as long as the learning rate, "
            f"and --lr_base is of the order of 0.0005 for it; try {ADAMW}"
        )
    return "".join(f"warning: {warning}\n" for warning in warnings)


def normalises_cells(trunk: nn.Module | None) -> bool:
    """Whether most of a trunk's norms are LayerNorms or their like, and not BatchNorms."""
    if trunk is None:
        return False
    norms = [part for part in trunk.modules() if "Norm" in type(part).__name__ and list(part.parameters(recurse=False))]
    return sum(isinstance(part, _BatchNorm) for part in norms) < len(norms) / 2
