"""What the main process does beside training: numbers, checkpoints, measurements."""

from pathlib import Path
from typing import Any

from pixpro.checkpoints.saver import Interval, Saver
from pixpro.data.views import View
from pixpro.errors import NotSaved
from pixpro.monitor.console import Console
from pixpro.monitor.matching import MatchingScore, encoder_matching
from pixpro.monitor.metrics import Metrics
from pixpro.monitor.semantics import MaskedImages, encoder_semantics
from pixpro.monitor.verdict import Diagnosis
from pixpro.run.narration import NOTHING, Learned, conclude
from pixpro.training.engine import Step, Trainer
from pixpro.visualize.board import pairs_picture

PATIENCE = 20.0  # seconds for the last save before an early end: schedulers give 30 between SIGTERM and SIGKILL
PATIENCE_AT_THE_END = 600.0  # a finished training is worth waiting for someone who frees disk space


class Record:
    """The outputs of a trainer's run of last_step steps into a folder, from its present step on.

    pairs: what the network is looked at with, at the beginning, every eval_every epochs and at the end. measured:
    whether it never trains on them, so that dense matching is measured, not only drawn. masks: images to fit a
    classifier of cells on and to judge it on, at both ends. constant: what checkpoints hold beside the trainer's state.
    from_last: whether that state is of the folder's last.pth.tar. agreement: whether the loss is PixPro's alone, whose
    scale people know. Others as in Config.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        last_step: int,
        pairs: tuple[View, View] | None,
        masks: tuple[MaskedImages, MaskedImages] | None,
        *,
        measured: bool,
        constant: dict[str, Any],
        from_last: bool,
        agreement: bool,
        epochs: int,
        save_every: Interval,
        keep: int,
        keep_every: int,
        eval_every: int,
        threshold: float,
    ) -> None:
        self.trainer, self.constant = trainer, constant
        self.metrics = Metrics(folder, trainer.good_step, last_step)
        self.console = Console(trainer.good_step, last_step, last_step // epochs)
        self.diagnosis = Diagnosis(peak_lr=trainer.optimizer.defaults["lr"], total_steps=last_step)
        self.saver = Saver(folder, every=save_every, keep=keep, last_is_good=from_last)
        self.pairs, self.measured, self.threshold, self.masks = pairs, measured, threshold, masks
        self.agreement, self.epochs, self.eval_every, self.keep_every = agreement, epochs, eval_every, keep_every
        self.untrained = NOTHING  # before the first step, if this is the run that made it

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        epoch = self.trainer.good_step * self.epochs // self.metrics.total_steps
        return {**self.trainer.state(), "epoch": epoch, **self.constant}

    def begin(self) -> None:
        """Look at the network before its first step; nothing is done when a run goes on."""
        if self.metrics.first_step == 0:
            self.show(0)
            self.untrained = self.learned()
            if numbers := self.untrained.numbers():
                self.metrics.write(0, numbers)

    def show(self, step: int) -> None:
        """Put a picture of a few pairs on TensorBoard, if there are any."""
        if self.pairs:
            picture = pairs_picture(self.trainer.core.encoder, self.pairs, self.threshold)
            self.metrics.picture(step, "pairs", picture)

    def score(self) -> MatchingScore | None:
        """Dense matching with the present weights, if there are held-out images."""
        if not (self.pairs and self.measured):
            return None
        return encoder_matching(self.trainer.core.encoder, self.pairs)["trunk"]

    def learned(self) -> Learned:
        """What is told of a network at both ends of a run."""
        named = encoder_semantics(self.trainer.core.encoder, *self.masks) if self.masks else None
        return Learned(self.score(), named)

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

    def after(self, step: Step, numbers: dict[str, float] | None, last: bool) -> None:
        """Report a step that has numbers; measure and save if it is time. After the last step, `finish` does."""
        if numbers:
            self.report(step, numbers)
        epochs_done = step.epoch + 1
        self.console.step(step.number)
        if last:
            return
        if step.ends_epoch and self.eval_every and epochs_done % self.eval_every == 0:
            self.show(step.number)
            if score := self.score():
                self.metrics.write(step.number, {"matching": score.accuracy})
        if step.ends_epoch and epochs_done % self.keep_every == 0:
            self.saver.keep_for_good(self.state, self.numbered(epochs_done))
        else:
            self.saver.after_step(self.state, step.number, epochs_done, step.ends_epoch)

    def save_before(self, end: Exception) -> None:
        """Save the state between two steps, because the run is about to end; NotSaved when that fails."""
        try:
            self.saver.write_now(self.state, PATIENCE)
        except NotSaved as error:
            raise NotSaved(f"{end}; moreover, {error}") from None

    def finish(self, folder: Path) -> None:
        """Save the last state, measure, and say what was written and learned; a finished run is left as it is."""
        first, last = self.metrics.first_step, self.metrics.total_steps
        if first > last:
            print(f"nothing to train: the state is of step {first}, beyond the {last} steps of {self.epochs} epochs")
        elif first < last or not (folder / self.numbered(self.epochs)).exists():
            self.saver.write_now(self.state, PATIENCE_AT_THE_END, self.numbered(self.epochs))
        after = self.learned()
        numbers = after.numbers()
        # A run that was killed after its last save has not yet been measured.
        if first < last or (first == last and any(not self.metrics.rows.has(last, name) for name in numbers)):
            self.show(last)
            if numbers:
                self.metrics.write(last, numbers)
        self.metrics.close()
        self.console.close()
        print(f"\n{self.diagnosis.summary()}")
        print(conclude(folder, self.untrained, after))

    @staticmethod
    def numbered(epochs_done: int) -> str:
        """Name of the checkpoint that is kept of an epoch, counted from 1."""
        return f"{epochs_done:04d}.pth.tar"
