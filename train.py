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
import os
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch

from pixpro import distributed, schedules
from pixpro.checkpoint import LAST
from pixpro.config import Config, parse_args
from pixpro.console import Console
from pixpro.cores import share_cores
from pixpro.data import Loader, make_loader
from pixpro.distributed import Process
from pixpro.engine import Trainer, amp_dtype
from pixpro.errors import UserError
from pixpro.images import Images, open_images
from pixpro.matching import encoder_matching
from pixpro.metrics import Metrics
from pixpro.model import DensePretraining, PixContrast, PixPro
from pixpro.optim import make_optimizer
from pixpro.plan import explore, pairs_line, plan_lines
from pixpro.run.determinism import make_deterministic
from pixpro.run.faults import Watchdog
from pixpro.run.folder import RunFolder
from pixpro.run.interval import Interval
from pixpro.run.loop import loop
from pixpro.run.narration import introduce
from pixpro.run.outcome import abandon, outcome, say
from pixpro.run.preemption import StopRequest
from pixpro.run.record import Record, open_held_out
from pixpro.run.resuming import begin, find_state
from pixpro.run.saver import Saver
from pixpro.run.skipped import SkippedSteps
from pixpro.scenes import sample_scenes
from pixpro.usage import memory_limit
from pixpro.verdict import Diagnosis
from pixpro.views import View


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit code (docs/robustness.md lists them)."""
    config = parse_args(argv)
    nproc = processes(config)
    if nproc == 1:
        return run(config)
    try:
        return distributed.launch(run, nproc, settle(config))
    except UserError as error:
        return say(error)


def run(config: Config) -> int:
    """Train in this process; returns its exit code."""
    try:
        process = distributed.join(timedelta(minutes=config.timeout))
    except UserError as error:
        return say(error)
    code = outcome(partial(work, config, process), process)
    distributed.leave()
    return code


def work(config: Config, process: Process) -> None:
    """Plan or train, after all processes have found their command lines to make sense."""
    with distributed.together(process, "command line"):
        config = settle(config)
    (plan if config.plan else train)(config, process)


def settle(config: Config) -> Config:
    """The configuration with its open ends filled in; UserError when it makes no sense. Nothing is written."""
    Interval.parse(config.save_every)
    if config.demo:
        scenes = sample_scenes()
        config = dataclasses.replace(config, data=[str(scenes / "train")], val_data=[str(scenes / "held_out")])
    name = f"demo_{config.loss}" if config.demo else f"{config.loss}_{config.arch}_{config.epochs}ep"
    return dataclasses.replace(config, output_dir=config.output_dir or str(Path("output", name)))


def processes(config: Config) -> int:
    """How many processes to start on this machine; one under torchrun, which has started them."""
    if not config.multiprocessing_distributed or "RANK" in os.environ:
        return 1
    gpus = torch.cuda.device_count()
    if gpus == 0:
        print(f"no GPU found: training on the CPU with {config.nproc or 1} process(es), see --nproc")
    return config.nproc or gpus or 1


def train(config: Config, process: Process) -> None:
    """Train in this process, together with the others of its group."""
    if config.deterministic:
        make_deterministic()
    folder = Path(config.output_dir)
    with StopRequest(process) as stop:
        with distributed.together(process, "input"):
            source = open_images(config.data)
            loader = build_loader(config, source, process)
            found = find_state(config.resume, folder) if process.is_main else None
            held_out = open_held_out(config.val_data, config.image_size, config.distance) if process.is_main else None
        distributed.require_equal(process, {**shared_settings(config), "images": len(source)})
        trainer = build_trainer(config, len(source), len(loader), process)
        found, settings = distributed.from_main(process, found), dataclasses.asdict(config)
        with distributed.together(process, "weights"):
            account = begin(trainer, found, settings=settings, images=len(source), init=config.init)
        first_step, last_step = trainer.good_step, config.epochs * len(loader)
        with distributed.together(process, "output"):
            output = RunFolder(folder, fresh=not (found or config.demo)) if process.is_main else None
            from_last = bool(found) and found[0].resolve() == (folder / LAST).resolve()
            record = build_record(config, trainer, len(source), last_step, held_out, from_last) if output else None
            skipped = SkippedSteps(folder, process, first_step)
        before = None
        if record:
            output.write_json("config.json", settings)
            method = f"{config.loss} on {config.arch}"
            print(account + introduce(method, loader, trainer, process, last_step), flush=True)
            before = record.measure() if record.measure and first_step == 0 else None
        with Watchdog(process, 60 * config.timeout, lambda: trainer.doing, partial(abandon, process=process)):
            loop(trainer, loader, last_step, log_every=config.log_every, skipped=skipped, stop=stop, record=record)
        if record:
            record.finish(folder, before, trained=first_step < last_step)


def plan(config: Config, process: Process) -> None:
    """Print what this run would take, from a few steps of it on this machine; nothing is written."""
    with distributed.together(process, "input"):
        source = open_images(config.data)
        whole = build_loader(config, source, process)
    trainer = build_trainer(dataclasses.replace(config, accumulation=1), len(source), len(whole), process)
    share = config.batch_size // process.world_size

    def loader_of(images: int) -> Loader:
        settings = {"batch_size": images * process.world_size, "accumulation": 1}
        return build_loader(dataclasses.replace(config, **settings), source, process)

    on_gpu = process.device.type == "cuda"
    found = explore(trainer, loader_of, share, 1 if on_gpu else process.local_world_size, process.world_size)
    if not process.is_main:
        return
    stride = 32 if config.neck == "none" else 2 ** max(config.levels)
    lines = plan_lines(
        found,
        images=len(source),
        epochs=config.epochs,
        batch_size=config.batch_size,
        world_size=process.world_size,
        workers=whole.workers,
        limit=memory_limit(process.device),
        peak_lr=partial(schedules.scaled_lr, config.lr_base),
        lr_rule=config.lr_rule,
    )
    pairs = pairs_line(
        source,
        distance=config.distance,
        cells=max(1, config.image_size // stride),
        threshold=config.threshold,
        crop_min=config.crop_min,
    )
    sizes = ", ".join(str(burst.images) for burst in found.bursts)
    method = f"{config.loss} on {config.arch}, {process.world_size} process(es) on {process.device.type}"
    print("\n".join([f"{method}: a few steps with {sizes} images per process", *lines, pairs]), flush=True)


def build_loader(config: Config, source: Images, process: Process) -> Loader:
    """This process's part of the images."""
    on_gpu = process.device.type == "cuda"
    if config.decode == "gpu" and not on_gpu:
        raise UserError("--decode gpu: no GPU found; leave it out, and the workers decode")
    workers, threads = share_cores(process.local_world_size, on_gpu)
    torch.set_num_threads(threads)
    return make_loader(
        source,
        batch_size=config.batch_size,
        rank=process.rank,
        world_size=process.world_size,
        accumulation=config.accumulation,
        seed=config.seed,
        workers=workers if config.workers < 0 else config.workers,
        image_size=config.image_size,
        distance=config.distance,
        crop_min=config.crop_min,
        max_bad=config.max_bad,
        pin_memory=on_gpu,
        decode_on=process.device if config.decode == "gpu" else None,
    )


def build_model(config: Config) -> DensePretraining:
    """The method on its backbone, with weights from the seed."""
    torch.manual_seed(config.seed)
    common = {
        "hidden_dim": config.hidden_dim,
        "dim": config.dim,
        "threshold": config.threshold,
        "neck": config.neck,
        "levels": config.levels,
        "instance_weight": config.instance_weight,
        "instance_loss": config.instance_loss,
        "instance_temperature": config.instance_temperature,
    }
    if config.loss == "pixcontrast":
        return PixContrast(config.arch, temperature=config.temperature, **common)
    return PixPro(config.arch, num_layers=config.num_linear, sharpness=config.sharpness, **common)


def build_trainer(config: Config, num_images: int, epoch_steps: int, process: Process) -> Trainer:
    """Model, optimizer and schedules on this process's device."""
    model = build_model(config).to(process.device, memory_format=torch.channels_last)
    model = distributed.synchronise_batchnorm(model, process)
    peak = schedules.scaled_lr(config.lr_base, config.batch_size, config.lr_rule)
    optimizer = make_optimizer(
        config.optimizer, model, lr=peak, momentum=config.momentum, weight_decay=config.weight_decay
    )
    return Trainer(
        model,
        optimizer,
        device=process.device,
        lr_at=partial(
            schedules.warmup_cosine_lr,
            base_lr=peak,
            total_steps=config.epochs * epoch_steps,
            warmup_steps=round(config.warmup_epochs * epoch_steps),
        ),
        momentum_at=partial(
            schedules.cosine_momentum,
            total_steps=schedules.momentum_steps(num_images, config.batch_size, config.epochs),
            base=config.momentum_base,
        ),
        amp_dtype=amp_dtype(config.amp, process.device),
        accumulation=config.accumulation,
        distributed=process.world_size > 1,
    )


def shared_settings(config: Config) -> dict:
    """The settings that all processes must share; where its images are is a machine's own affair."""
    own = ("data", "val_data", "workers", "init", "resume")
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in own}


def build_record(
    config: Config, trainer: Trainer, images: int, last_step: int, held_out: tuple[View, View] | None, from_last: bool
) -> Record:
    """The outputs of the main process. from_last: whether the run goes on from its own last.pth.tar."""
    folder, constant = Path(config.output_dir), {"images": images, "config": dataclasses.asdict(config)}
    every = Interval.parse(config.save_every)
    return Record(
        metrics=Metrics(folder, trainer.good_step, last_step),
        console=Console(trainer.good_step, last_step, last_step // config.epochs),
        diagnosis=Diagnosis(peak_lr=trainer.optimizer.defaults["lr"], total_steps=last_step),
        saver=Saver(folder, every=every, keep=config.keep, last_is_good=from_last),
        state=lambda: {**trainer.state(), "epoch": trainer.good_step * config.epochs // last_step, **constant},
        measure=(lambda: encoder_matching(trainer.core.encoder, held_out)["trunk"]) if held_out else None,
        agreement=config.loss == "pixpro" and config.instance_weight == 0,
        epochs=config.epochs,
        eval_every=config.eval_every,
        keep_every=config.keep_every,
    )


if __name__ == "__main__":
    sys.exit(main())
