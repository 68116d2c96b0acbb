"""Pre-train a backbone on unlabelled images with PixPro or PixContrast.

    python train.py --demo                                     minutes on a CPU, built-in sample images
    python train.py --data DIR --epochs 100                    one process, on a GPU if there is one
    python train.py --multiprocessing-distributed --data DIR   one process per GPU of this machine
    torchrun --nproc_per_node 8 train.py --data DIR            the same, on one or many machines
    python train.py --data DIR --plan                          what a run would take on this machine

Everything is written to --output_dir: config.json, metrics.jsonl, TensorBoard events, checkpoints.
`python train.py --help` lists the settings; pixpro/config.py is where they live.
"""

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pixpro.checkpoints.folder import RunFolder
from pixpro.checkpoints.initialise import MODEL_SETTINGS, seeded_model
from pixpro.checkpoints.saver import Interval
from pixpro.command_line import on_resume, shared_settings
from pixpro.config import Config, parse_args, settle
from pixpro.data import Loader
from pixpro.data.held_out import open_pairs
from pixpro.errors import UserError
from pixpro.images import Images, ImageSet, open_images
from pixpro.method.model import DensePretraining
from pixpro.method.trunks import libraries
from pixpro.monitor.report import report_line
from pixpro.monitor.semantics import open_masks
from pixpro.plan.recipes import recipe_line
from pixpro.plan.rows import make_plan
from pixpro.run.loop import SkippedSteps, loop
from pixpro.run.narration import introduce
from pixpro.run.output import lasting_output
from pixpro.run.record import Record
from pixpro.run.resuming import first_state
from pixpro.run.starting import abandon, in_group, processes_to_start, say
from pixpro.scenes import sample_scenes
from pixpro.training import distributed, schedules
from pixpro.training.compiling import compile_for
from pixpro.training.engine import Trainer
from pixpro.training.half_precision import amp_dtype, computes, emulation
from pixpro.training.loading import loader_for, require_statistics
from pixpro.training.machine import choose_kernels, keep_freed_memory
from pixpro.training.optim import make_optimizer, pairing_warnings
from pixpro.training.processes import Process
from pixpro.training.supervision import StopRequest
from pixpro.training.sync_batchnorm import BatchNorm, join_views, joined_uncompiled
from pixpro.training.watchdog import Watchdog


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit code (docs/robustness.md lists them)."""
    with lasting_output():
        config = parse_args(argv)
        nproc = processes_to_start(config.multiprocessing_distributed, config.nproc)
        if nproc == 1:
            return run(config)
        try:
            return distributed.launch(run, nproc, settle(config))
        except UserError as error:
            return say(error)


def run(config: Config) -> int:
    """Plan or train in this process; returns its exit code."""
    return in_group(partial(work, config), config.timeout)


def work(config: Config, process: Process) -> None:
    """Plan or train, after all processes have found their command lines to make sense."""
    with process.together("reading the command line"):
        config = settle(config)
    process.require_equal(shared_settings(config))
    choose_kernels(deterministic=config.deterministic)
    if process.device.type == "cpu":
        keep_freed_memory()
    (plan if config.plan else train)(config, process)


def train(config: Config, process: Process) -> None:
    """Train in this process, together with the others of its group."""
    folder, settings = Path(config.output_dir), dataclasses.asdict(config)
    with StopRequest(process), Watchdog(process, 60 * config.timeout, partial(abandon, process=process)):
        with process.together("looking for the images"):
            source = open_images(config.data)
            loader = build_loader(config, source, process)
            pairs = open_pairs(source, config.val_data, config.image_size, config.distance) if process.is_main else None
            masks = open_masks(sample_scenes(), config.image_size) if config.demo and process.is_main else None
            require_statistics(loader.order.micro * process.world_size, config.image_size, "--batch_size")
            if pairs:
                require_statistics(len(pairs[0].box), config.image_size, "held-out images")
            images = ImageSet.of(source)
        process.require_equal({"images": str(images)})
        trainer = build_trainer(config, len(source), loader, process)
        start = first_state(trainer, process, folder, settings, on_resume(config), images)
        if config.compile:
            compile_for(trainer, process, loader.order.micro, config.image_size)
        first_step, last_step, record = trainer.good_step, config.epochs * len(loader), None
        with process.together("taking the output folder"):
            output = RunFolder(folder, fresh=not start.found, again=config.demo) if process.is_main else None
            skipped = SkippedSteps(folder, process, first_step)
            if output:
                record = build_record(config, trainer, images, last_step, (pairs, masks), start.from_last)
                output.write_json("config.json", settings)
        with process.together("looking at the network before its first step"):
            if record:
                account = start.account + recipe_line(settings) + emulation(trainer.amp_dtype, process.device)
                account += pairing_warnings(trainer.core.encoder, config.optimizer, config.lr_base)
                method = f"{config.loss} on {config.arch}"
                print(account + introduce(method, loader, trainer, process, last_step), flush=True)
                record.begin()
        loop(trainer, loader, last_step, log_every=config.log_every, skipped=skipped, process=process, record=record)
        with process.together("saving and measuring the result"):
            if record:
                record.finish(folder)
    if record and config.report:
        print(report_line(folder), flush=True)


def plan(config: Config, process: Process) -> None:
    """Print what this run would take, from a few steps of it on this machine; nothing is written."""
    with process.together("looking for the images"):
        source = open_images(config.data)
        loader = build_loader(config, source, process)
    config = dataclasses.replace(config, accumulation=1)
    trainer = build_trainer(config, len(source), loader, process)
    text = make_plan(
        f"{config.loss} on {config.arch}",
        trainer,
        loader,
        lambda batch_size: build_loader(dataclasses.replace(config, batch_size=batch_size), source, process),
        process,
        epochs=config.epochs,
        peak_lr=partial(schedules.scaled_lr, config.lr_base),
        **handed_on(config, "lr_rule", "recipe", "image_size", "distance", "threshold", "crop_min"),
    )
    if process.is_main:
        warnings = pairing_warnings(trainer.core.encoder, config.optimizer, config.lr_base)
        left_out = f"{source.left_out}\n" if source.left_out else ""
        print(recipe_line(dataclasses.asdict(config)) + warnings + left_out + text, flush=True)


def handed_on(config: Config, *names: str) -> dict[str, Any]:
    """Settings that are passed on under their own names."""
    return {name: getattr(config, name) for name in names}


def build_loader(config: Config, source: Images, process: Process) -> Loader:
    """This process's part of the images."""
    how = handed_on(config, "batch_size", "accumulation", "seed", "workers", "decode", "max_bad")
    views = handed_on(config, "image_size", "distance", "crop_min")
    return loader_for(process, source, **how, **views)


def build_model(config: Config) -> DensePretraining:
    """The method on its backbone, with weights from the seed."""
    return seeded_model(**handed_on(config, *MODEL_SETTINGS), drop_path=config.drop_path)


def build_trainer(config: Config, num_images: int, loader: Loader, process: Process) -> Trainer:
    """Model, optimizer and schedules on this process's device."""
    model = build_model(config).to(process.device, memory_format=torch.channels_last)
    model = BatchNorm.convert(model, process.world_size)
    join_views(model, joined_uncompiled(process.device, loader.order.micro, config.image_size))
    peak = schedules.scaled_lr(config.lr_base, config.batch_size, config.lr_rule)
    steps, warmup = config.epochs * len(loader), round(config.warmup_epochs * len(loader))
    momentum_steps = schedules.momentum_steps(num_images, config.batch_size, config.epochs)
    bf16 = distributed.all_agree(computes(torch.bfloat16, process.device), process.device)
    optimizer = make_optimizer(config.optimizer, model, lr=peak, **handed_on(config, "momentum", "weight_decay"))
    return Trainer(
        model,
        optimizer,
        device=process.device,
        lr_at=partial(schedules.warmup_cosine_lr, base_lr=peak, total_steps=steps, warmup_steps=warmup),
        momentum_at=partial(schedules.cosine_momentum, total_steps=momentum_steps, base=config.momentum_base),
        amp_dtype=amp_dtype(config.amp, process.device, bf16=bf16),
        accumulation=config.accumulation,
        seed=f"{config.seed} {process.rank}" if config.drop_path else None,
        distributed=process.world_size > 1,
    )


def build_record(
    config: Config, trainer: Trainer, images: ImageSet, last_step: int, looks: tuple[Any, Any], from_last: bool
) -> Record:
    """The outputs of the main process; looks: pairs and masks. from_last: whether last.pth.tar gave the first state."""
    return Record(
        Path(config.output_dir),
        trainer,
        last_step,
        *looks,
        measured=bool(config.val_data),
        constant={
            "images": images.count,
            "images_fingerprint": images.fingerprint,
            "config": dataclasses.asdict(config),
            "libraries": libraries(config.arch),
        },
        from_last=from_last,
        agreement=config.loss == "pixpro" and config.instance_weight == 0,
        save_every=Interval.parse(config.save_every),
        **handed_on(config, "epochs", "keep", "keep_every", "eval_every", "threshold"),
    )


if __name__ == "__main__":
    sys.exit(main())
