"""Backbone and optimizer looked at together -> what the user should know before a long run with them."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pixpro.method.encoder import Encoder

ADAMW = "--optimizer adamw --lr_base 0.0005 --weight_decay 0.05"
LARGEST_ADAMW_LR = 0.01  # per 256 images; recipes have 0.00015 to 0.001, those of LARS and SGD 0.03 and more


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
