"""Rows of numbers -> what a person sees while training: a progress bar in a terminal, plain lines elsewhere."""

import os
import shutil
import sys
import time
from contextlib import nullcontext
from threading import RLock
from typing import TextIO

from tqdm import tqdm
from tqdm.std import EMA

# name in metrics.jsonl -> (label, format); the order of the line
SHOWN = {
    "loss": ("loss", "{:.3f}"),
    "agreement": ("agreement", "{:.2f}"),
    "target_rank": ("rank", "{:.1f}"),
    "target_std": ("spread", "{:.2f}"),
    "within_image_rank": ("within images", "{:.1f}"),
    "positives": ("positives", "{:.0f}/image"),
    "lr": ("lr", "{:.3g}"),
    "images_per_second": ("", "{:.3g} images/s"),
    "data_wait": ("data wait", "{:.0%}"),
    "memory_gb": ("", "{:.1f} GB"),
}
REDRAWN = 0.1  # seconds between two drawings of the bar
MEMORY = 100  # steps after which a change of speed shows in the time left: more than a save takes, less than a coffee


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


class Pace:
    """The time that a run's rest takes, from the speed of its last steps; first_step: those done when it started."""

    def __init__(self, first_step: int) -> None:
        self.noted, self.done = time.perf_counter(), first_step
        self.mean, self.each = EMA(1 / MEMORY), 0.0

    def note(self, number: int) -> None:
        """A step is over; those that came since the last one took the same time each."""
        if number <= self.done:
            return
        now, steps = time.perf_counter(), number - self.done
        for _ in range(steps):
            self.each = self.mean((now - self.noted) / steps)
        self.noted, self.done = now, number

    def left(self, number: int, last: int) -> str:
        """Time from a step to the last one."""
        self.note(number)
        return duration(self.each * (last - number))


class Bar(tqdm):
    """A bar without a thread of its own."""

    monitor_interval = 0


Bar.set_lock(RLock())  # tqdm's own lock is for processes too, and would settle for all how they are started


class Console:
    """Prints a run's lines, and below them, in a terminal that can draw a line again, a bar that moves with every step.

    total_steps, epoch_steps: of the whole run and of an epoch; first_step: those already done when it started.
    """

    def __init__(self, first_step: int, total_steps: int, epoch_steps: int, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.total_steps, self.epoch_steps = total_steps, epoch_steps
        self.pace = Pace(first_step)
        self.live = self.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.bar: Bar | None = None  # drawn from the first step on: before it come lines that are not ours

    def step(self, number: int) -> None:
        """Move the bar to a finished step; nothing where lines are plain."""
        self.pace.note(number)
        if not self.live:
            return
        columns = max(1, shutil.get_terminal_size().columns - 1)
        text = f"{self.place(number)}  {self.time_left(number)}"
        if self.bar is None:
            self.bar = Bar(
                desc=text,
                total=self.total_steps,
                initial=number,
                file=self.stream,
                ncols=columns,
                bar_format="{bar} {percentage:3.0f}%  {desc}",
                position=0,
                leave=False,
                mininterval=REDRAWN,
                miniters=1,
            )
        self.bar.ncols = columns
        self.bar.set_description_str(text, refresh=False)
        self.bar.update(number - self.bar.n)

    def report(self, number: int, values: dict[str, float]) -> None:
        """Print the numbers of a step."""
        self.line(f"{self.place(number)}  {numbers_line(values)}  {self.time_left(number)}")

    def line(self, text: str) -> None:
        """Print a line of its own above the bar."""
        with Bar.external_write_mode(self.stream) if self.bar else nullcontext():
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar:
            self.bar.close()

    def place(self, number: int) -> str:
        """Epoch and step, both counted from 1."""
        epochs = -(-self.total_steps // self.epoch_steps)
        return f"epoch {(number - 1) // self.epoch_steps + 1}/{epochs}  step {number}/{self.total_steps}"

    def time_left(self, number: int) -> str:
        """Time to the end of the run and of the epoch."""
        end_of_epoch = number + -number % self.epoch_steps
        within = number < end_of_epoch < self.total_steps
        epoch = f" (epoch {self.pace.left(number, end_of_epoch)})" if within else ""
        return f"ETA {self.pace.left(number, self.total_steps)}{epoch}"
