"""The checkpoint of a finished run of detect.py or segment.py -> what it takes to use its model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pixpro.checkpoints import checkpoint
from pixpro.errors import UserError
from pixpro.method.trunks import CHOICES


@dataclass(frozen=True)
class Finished:
    """A trained model: its trunk's arch, its classes, the settings of its run and its weights."""

    path: Path
    arch: str
    class_names: list[str]
    settings: dict[str, Any]
    state: dict[str, Tensor]

    def number(self, name: str) -> int | None:
        """A whole number above zero among the settings; None when it was not given."""
        value = self.settings.get(name)
        return value if isinstance(value, int) and value > 0 else None

    def load_into(self, model: nn.Module) -> None:
        """Give a model of the same kind these weights; UserError when it is of another kind."""
        try:
            model.load_state_dict(self.state)
        except RuntimeError as error:
            raise UserError(f"{self.path} holds another model than its settings make; it was altered") from error


def load_finished(path: Path, program: str) -> Finished:
    """The run's model; UserError for other files. program: detect.py or segment.py, which must have made it."""
    state = checkpoint.load(path)
    settings = state["config"]
    if not isinstance(settings, dict) or settings.get("program") != program:
        raise UserError(f"{path} was not made by {program}; expected the {checkpoint.LAST} in its output folder")
    arch, names = settings.get("backbone"), settings.get("class_names")
    if arch not in CHOICES or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} does not say which backbone and classes it has; expected a checkpoint of {program}")
    return Finished(path, arch, names, settings, state["model"])
