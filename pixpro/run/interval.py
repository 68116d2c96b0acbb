"""How often something is to happen, as people write it: 10min, 500steps, 1ep."""

import math
import re
from dataclasses import dataclass

from pixpro.errors import UserError


@dataclass(frozen=True)
class Interval:
    """A number of minutes, steps or epochs."""

    amount: float
    unit: str  # min, steps or ep

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """The interval that a text like 10min, 500steps or 1ep says; UserError for any other text."""
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?(min|steps?|ep)", text, re.ASCII)
        if match is None:
            raise UserError(f"interval {text!r}: expected a number with its unit, such as 10min, 500steps or 1ep")
        amount, unit = float(match[1]), match[2].replace("step", "steps").replace("ss", "s")
        if amount <= 0 or (unit != "min" and amount != math.floor(amount)):
            raise UserError(f"interval {text!r}: expected more than 0, and whole steps or epochs")
        return cls(amount, unit)

    def passed(self, step: int, epochs_done: int, ends_epoch: bool, minutes: float) -> bool:
        """Whether it is time, after a step: minutes are those since the last time."""
        if self.unit == "min":
            return minutes >= self.amount
        if self.unit == "steps":
            return step % self.amount == 0
        return ends_epoch and epochs_done % self.amount == 0
