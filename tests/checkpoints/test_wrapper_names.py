"""Names of tensors lose what compiling and parallel wrappers added to them, wherever it stands."""

import collections

import pytest
import torch

from pixpro.checkpoints.convert import convert
from pixpro.checkpoints.layouts import without_wrappers
from pixpro.errors import UserError


@pytest.mark.parametrize(
    "name",
    [
        "module.layer1.0.conv1.weight",
        "_orig_mod.layer1.0.conv1.weight",
        "layer1._orig_mod.0.conv1.weight",
        "layer1.0._orig_mod.conv1.weight",
        "layer1.module.0.conv1.weight",
        "_forward_module.module.layer1.0.conv1.weight",
        "_fsdp_wrapped_module.layer1._fsdp_wrapped_module.0.conv1.weight",
        "layer1._checkpoint_wrapped_module.0.conv1._orig_mod.weight",
    ],
)
def test_the_parts_that_wrappers_add_to_a_name_are_taken_out_wherever_they_stand(name):
    assert without_wrappers(name) == "layer1.0.conv1.weight"


class Compiled(torch.nn.Module):
    """Named like what torch.compile makes of a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


def test_a_compiled_part_of_a_model_is_read_as_the_part():
    part = torch.nn.Conv2d(3, 4, 3, bias=False)
    model = torch.nn.Sequential(collections.OrderedDict(conv1=Compiled(part)))
    assert list(model.state_dict()) == ["conv1._orig_mod.weight"]
    assert torch.equal(convert(dict(model.state_dict())).state_dict["encoder.conv1.weight"], part.weight)


def test_the_same_tensor_under_two_wrappers_is_refused():
    tensors = {"conv1.weight": torch.ones(1), "conv1._orig_mod.weight": torch.ones(1)}
    with pytest.raises(UserError, match="two tensors are both conv1.weight"):
        convert(tensors)
