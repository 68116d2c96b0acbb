"""Other projects' checkpoints -> state dicts under our names."""

from torch import Tensor

OFFICIAL = {
    "encoder.": "encoder.",
    "projector.": "encoder.projector.",
    "projector_instance.": "encoder.instance_projector.",
    "encoder_k.": "momentum_encoder.",
    "projector_k.": "momentum_encoder.projector.",
    "projector_instance_k.": "momentum_encoder.instance_projector.",
    "value_transform.": "propagation.transform.",
    "predictor.": "instance.predictor.",
}


def to_pixpro(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names, from a state dict of zdaxie/PixPro."""
    renamed = {}
    for name, tensor in state_dict.items():
        name = name.removeprefix("module.")
        prefix = next(prefix for prefix in OFFICIAL if name.startswith(prefix))
        renamed[OFFICIAL[prefix] + name.removeprefix(prefix)] = tensor
    return renamed
