"""What the main process does beside training: numbers, checkpoints, measurements."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixpro.console import Console
from pixpro.engine import Step, Trainer
from pixpro.errors import UserError
from pixpro.images import open_images
from pixpro.matching import MatchingScore, encoder_matching, held_out_pairs
from pixpro.metrics import Metrics
from pixpro.run.endings import Ending, NotSaved
from pixpro.run.interval import Interval
from pixpro.run.narration import conclude
from pixpro.run.saver import Saver
from pixpro.verdict import Diagnosis
from pixpro.views import Distance, View

HELD_OUT = 64  # images on which dense matching accuracy is measured
PATIENCE = 20.0  # seconds for the last save before an early end: schedulers give 30 between SIGTERM and SIGKILL
PATIENCE_AT_THE_END = 600.0  # a finished training is worth waiting for someone who frees disk space


@dataclass
class Record:
    """The outputs of a run.

    state: makes what a checkpoint holds. measure: dense matching on held-out images, if there are any.
    agreement: whether the loss is PixPro's alone, whose scale people know. Others as in Config.
    """

    metrics: Metrics
    console: Console
    diagnosis: Diagnosis
    saver: Saver
    state: Callable[[], dict[str, Any]]
    measure: Callable[[], MatchingScore] | None
    agreement: bool
    epochs: int
    eval_every: int
    keep_every: int

    def report(self, step: Step, numbers: dict[str, float]) -> None:
        """Write a step's numbers, print the line of them, and say what looks wrong lately."""
        values = {"epoch": step.epoch + 1, "loss": numbers["loss"]}
        if self.agreement:
            values["agreement"] = -numbers["loss"] / 4
        values |= {"lr": step.lr, "momentum": step.momentum, **numbers}
        self.console.report(step.number, values)
        remarks = [finding.text for finding in self.diagnosis.new({"step": step.number, **values})]
        for remark in remarks:
            self.console.line(f"warning: {remark}")
        self.metrics.write(step.number, values, remarks)

    def after(self, step: Step, last: bool) -> None:
        """Measure and save if it is time; the last step is for `finish`."""
        epochs_done = step.epoch + 1
        self.console.step(step.number)
        if last:
            return
        if self.measure and step.ends_epoch and self.eval_every and epochs_done % self.eval_every == 0:
            self.metrics.write(step.number, {"matching": self.measure().accuracy})
        if step.ends_epoch and epochs_done % self.keep_every == 0:
            self.saver.keep_for_good(self.state, self.numbered(epochs_done))
        else:
            self.saver.after_step(self.state, step.number, epochs_done, step.ends_epoch)

    def save_before(self, end: UserError | Ending) -> None:
        """Save the state between two steps, because the run is about to end; NotSaved when that fails."""
        try:
            self.saver.write_now(self.state, PATIENCE)
        except NotSaved as error:
            raise NotSaved(f"{end}; moreover, {error}") from None

    def finish(self, folder: Path, before: MatchingScore | None, trained: bool) -> None:
        """Save the last state, measure, and say what was written and learned."""
        numbered = self.numbered(self.epochs)
        if trained or not (folder / numbered).exists():
            self.saver.write_now(self.state, PATIENCE_AT_THE_END, numbered)
        after = self.measure() if self.measure else None
        if after and trained:
            self.metrics.write(self.metrics.total_steps, {"matching": after.accuracy})
        self.metrics.close()
        self.console.close()
        print(f"\n{self.diagnosis.summary()}")
        print(conclude(folder, before, after))

    @staticmethod
    def numbered(epochs_done: int) -> str:
        """Name of the checkpoint that is kept of an epoch, counted from 1."""
        return f"{epochs_done:04d}.pth.tar"


def make_record(
    folder: Path,
    trainer: Trainer,
    last_step: int,
    held_out: tuple[View, View] | None,
    *,
    constant: dict[str, Any],
    from_last: bool,
    agreement: bool,
    epochs: int,
    save_every: Interval,
    keep: int,
    keep_every: int,
    eval_every: int,
) -> Record:
    """The record of a trainer's run of last_step steps into a folder, from its present step on.

    constant: what checkpoints hold beside the trainer's state. from_last: whether that state is of the folder's
    last.pth.tar.
    """
    first_step = trainer.good_step
    return Record(
        metrics=Metrics(folder, first_step, last_step),
        console=Console(first_step, last_step, last_step // epochs),
        diagnosis=Diagnosis(peak_lr=trainer.optimizer.defaults["lr"], total_steps=last_step),
        saver=Saver(folder, every=save_every, keep=keep, last_is_good=from_last),
        state=lambda: {**trainer.state(), "epoch": trainer.good_step * epochs // last_step, **constant},
        measure=(lambda: encoder_matching(trainer.core.encoder, held_out)["trunk"]) if held_out else None,
        agreement=agreement,
        epochs=epochs,
        eval_every=eval_every,
        keep_every=keep_every,
    )


def open_held_out(roots: Sequence[str], image_size: int, distance: Distance) -> tuple[View, View] | None:
    """Pairs of views of the first held-out images, if there are any."""
    if not roots:
        return None
    source = open_images(roots)
    files = [source.name(index) for index in range(min(HELD_OUT, len(source)))]
    return held_out_pairs(files, image_size, distance=distance)
