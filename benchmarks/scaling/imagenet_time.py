"""Images per second of devices and loader -> hours of ImageNet, with the arithmetic."""

import math
from typing import NamedTuple

IMAGENET = 1_281_167  # training images
EPOCHS = (100, 400)  # of the published weights


class Machine(NamedTuple):
    """What limits a run: its devices together, and the cores that prepare the images."""

    images_per_second: float  # of one device
    devices: int = 1
    efficiency: float = 1.0  # speed of several devices over that of one times their number
    data_per_core: float = math.inf  # images/s that a core prepares; infinite where data is in the first number
    cores: int = 1

    @property
    def computed(self) -> float:
        """Images/s of all devices, were the images always there."""
        return self.images_per_second * self.devices * self.efficiency

    @property
    def prepared(self) -> float:
        """Images/s that the loader delivers."""
        return self.data_per_core * self.cores

    @property
    def rate(self) -> float:
        """Images/s of the run: the slower of the two."""
        return min(self.computed, self.prepared)


def hours(images_per_second: float, epochs: int) -> float:
    """Hours of so many epochs of ImageNet."""
    return IMAGENET * epochs / images_per_second / 3600


def cores_to_feed(images_per_second: float, data_per_core: float) -> int:
    """Loader cores that deliver so many images per second; the training process needs one more."""
    return math.ceil(images_per_second / data_per_core)


def arithmetic(machine: Machine) -> list[str]:
    """The calculation, a line per step."""
    speed, devices, efficiency, each, cores = machine
    lines = [
        f"{speed:.4g} images/s per device x {devices} x efficiency {efficiency:.2f} = {machine.computed:.4g} images/s"
    ]
    if machine.prepared < math.inf:
        verdict = "the limit" if machine.prepared < machine.computed else "enough"
        lines.append(
            f"{each:.4g} images/s per core x {cores} cores = {machine.prepared:.4g} images/s of data: {verdict}"
        )
    for epochs in EPOCHS:
        found = f"{hours(machine.rate, epochs):.2f} h"
        lines.append(f"{IMAGENET} images x {epochs} epochs / {machine.rate:.4g} images/s / 3600 = {found}")
    return lines
