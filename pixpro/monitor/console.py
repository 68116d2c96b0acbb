"""Rows of numbers -> what a person sees while training: a progress bar in a terminal, plain lines elsewhere."""

import os
import shutil
import sys
import time
from typing import TextIO

# name in metrics.jsonl -> (label, format); the order of the line
SHOWN = {
    "loss": ("loss", "{:.3f}"),
    "agreement": ("agreement", "{:.2f}"),
    "target_rank": ("rank", "{:.1f}"),
    "target_std": ("spread", "{:.2f}"),
    "positives": ("positives", "{:.0f}/image"),
    "lr": ("lr", "{:.3g}"),
    "images_per_second": ("", "{:.3g} images/s"),
    "data_wait": ("data wait", "{:.0%}"),
    "memory_gb": ("", "{:.1f} GB"),
}
REDRAWN = 0.1  # seconds between two drawings of the bar


def duration(seconds: float) -> str:
    """A time in two units that people read: 45 s, 3 min 20 s, 2 h 05 min, 1 d 4 h."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def numbers_line(values: dict[str, float]) -> str:
    """The numbers worth watching, with their names and units."""
    shown = [f"{label} {form.format(values[name])}".strip() for name, (label, form) in SHOWN.items() if name in values]
    return "  ".join(shown)


def is_terminal(stream: TextIO) -> bool:
    """True where a line can be drawn again: a terminal that is not dumb."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Console:
    """Prints a run's lines, and below them, in a terminal, a bar that moves with every step.

    total_steps, epoch_steps: of the whole run and of an epoch; first_step: those already done when it started.
    """

    def __init__(self, first_step: int, total_steps: int, epoch_steps: int, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.first_step, self.total_steps, self.epoch_steps = first_step, total_steps, epoch_steps
        self.live = is_terminal(self.stream)
        self.started = time.perf_counter()
        self.drawn = 0.0
        self.bar_text = ""

    def step(self, number: int) -> None:
        """Move the bar to a finished step; nothing where lines are plain."""
        now = time.perf_counter()
        if self.live and (now - self.drawn >= REDRAWN or number == self.total_steps):
            self.drawn = now
            self.bar_text = self.bar(number, shutil.get_terminal_size().columns)
            self._write(f"\r\x1b[K{self.bar_text}")

    def report(self, number: int, values: dict[str, float]) -> None:
        """Print the numbers of a step."""
        self.line(f"{self.place(number)}  {numbers_line(values)}  {self.time_left(number)}")

    def line(self, text: str) -> None:
        """Print a line of its own above the bar."""
        self._write(f"\r\x1b[K{text}\n{self.bar_text}" if self.live else f"{text}\n")

    def close(self) -> None:
        """Take the bar away."""
        if self.live and self.bar_text:
            self.bar_text = ""
            self._write("\r\x1b[K")

    def bar(self, number: int, columns: int) -> str:
        """The bar after a step, at most columns - 1 characters wide."""
        tail = f" {number / self.total_steps:4.0%}  {self.place(number)}  {self.time_left(number)}"
        width = min(30, columns - 1 - len(tail))
        if width < 5:
            return tail.strip()[: max(0, columns - 1)]
        filled = width * number // self.total_steps
        return "█" * filled + "░" * (width - filled) + tail

    def place(self, number: int) -> str:
        """Epoch and step, both counted from 1."""
        epochs = -(-self.total_steps // self.epoch_steps)
        return f"epoch {(number - 1) // self.epoch_steps + 1}/{epochs}  step {number}/{self.total_steps}"

    def time_left(self, number: int) -> str:
        """Time to the end of the run and of the epoch, from the mean speed since the start or the resume."""
        each = (time.perf_counter() - self.started) / max(1, number - self.first_step)
        of_epoch = -number % self.epoch_steps
        epoch = f" (epoch {duration(each * of_epoch)})" if of_epoch and self.total_steps - number > of_epoch else ""
        return f"ETA {duration(each * (self.total_steps - number))}{epoch}"

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
