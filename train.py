"""Pre-train a backbone on unlabelled images with PixPro or PixContrast.

    python train.py --demo                                     minutes on a CPU, built-in sample images
    python train.py --data DIR --epochs 100                    one process, on a GPU if there is one
    python train.py --multiprocessing-distributed --data DIR   one process per GPU of this machine
    torchrun --nproc_per_node 8 train.py --data DIR            the same, on one or many machines

Everything is written to --output_dir: config.json, metrics.jsonl, TensorBoard events, checkpoints.
`python train.py --help` lists the settings; pixpro/config.py is where they live.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from pixpro import checkpoint, distributed, schedules
from pixpro.config import Config, parse_args
from pixpro.cores import share_cores
from pixpro.data import Loader, make_loader
from pixpro.distributed import Process
from pixpro.engine import Step, Trainer, amp_dtype
from pixpro.errors import UserError
from pixpro.images import Images, open_images
from pixpro.initialise import initialise
from pixpro.matching import MatchingScore, encoder_matching, held_out_pairs
from pixpro.metrics import Metrics
from pixpro.model import DensePretraining, PixContrast, PixPro
from pixpro.optim import LARS, parameter_groups
from pixpro.scenes import sample_scenes

HELD_OUT = 64  # images on which dense matching accuracy is measured


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    config = parse_args(argv)
    try:
        config = settle(config)
        nproc = processes(config)
        if nproc > 1:
            return distributed.launch(run, nproc, config)
    except UserError as error:
        return complain(error)
    return run(config)


def run(config: Config) -> int:
    """Train in this process; returns its exit code."""
    try:
        train(config)
    except UserError as error:
        return complain(error)
    finally:
        distributed.leave()
    return 0


def complain(error: UserError) -> int:
    """Say what is wrong, once for all processes; returns the exit code for wrong input."""
    if os.environ.get("RANK", "0") == "0":
        print(f"error: {error}", file=sys.stderr)
    return 2


def settle(config: Config) -> Config:
    """The configuration with its open ends filled in; UserError when it makes no sense. Nothing is written."""
    if not 32 <= config.image_size <= 1024:
        raise UserError(f"--image_size {config.image_size}: expected 32 to 1024 pixels; the published size is 224")
    if config.demo:
        scenes = sample_scenes()
        config = dataclasses.replace(config, data=[str(scenes / "train")], val_data=[str(scenes / "held_out")])
    name = f"{'demo_' if config.demo else ''}{config.loss}_{config.arch}_{config.epochs}ep"
    return dataclasses.replace(config, output_dir=config.output_dir or str(Path("output", name)))


def processes(config: Config) -> int:
    """How many processes to start on this machine; one under torchrun, which has started them."""
    if not config.multiprocessing_distributed or "RANK" in os.environ:
        return 1
    gpus = torch.cuda.device_count()
    if gpus == 0:
        print(f"no GPU found: training on the CPU with {config.nproc or 1} process(es), see --nproc")
    return config.nproc or gpus or 1


def train(config: Config) -> None:
    """Train in this process, together with the others of its group."""
    process = distributed.join()
    source = open_images(config.data)
    loader = build_loader(config, source, process)
    trainer = build_trainer(config, len(source), len(loader), process)
    folder, last_step = Path(config.output_dir), config.epochs * len(loader)
    first_step = resume(config, trainer, folder)
    if config.init and first_step == 0:
        account = initialise(trainer.core, config.init)
        if process.is_main:
            print(account, flush=True)
    measure = matching(config, trainer) if process.is_main else None
    metrics = None
    if process.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        metrics = Metrics(folder, first_step, last_step)
        introduce(config, source, loader, trainer, process)
    before = measure() if measure and first_step == 0 else None
    for step in trainer.run(loader, first_step, last_step):
        if step.number % config.log_every == 0 or step.ends_epoch:
            loss = distributed.mean_over_processes(step.loss).item()
            if metrics:
                report(config, metrics, step, loss)
        if metrics and step.ends_epoch:
            save(config, trainer, step, folder, last_step)
            if measure and config.eval_every and (step.epoch + 1) % config.eval_every == 0:
                metrics.write(step.number, {"matching": measure().accuracy})
    if metrics:
        metrics.close()
        conclude(folder, before, measure() if measure else None)


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
    if config.optimizer == "lars":
        optimizer = LARS(parameter_groups(model, config.weight_decay), peak, config.momentum)
    else:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trainable, peak, config.momentum, weight_decay=config.weight_decay)
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


def resume(config: Config, trainer: Trainer, folder: Path) -> int:
    """Take up the checkpoint that --resume asks for; returns the number of steps already done."""
    path = checkpoint.find(config.resume, folder) if config.resume else None
    if path is None:
        return 0
    state = checkpoint.load(path)
    for name in (
        "loss",
        "arch",
        "hidden_dim",
        "dim",
        "num_linear",
        "neck",
        "levels",
        "instance_weight",
        "instance_loss",
    ):
        if state["config"][name] != getattr(config, name):
            raise UserError(
                f"{path} was trained with --{name} {state['config'][name]}, this run has {getattr(config, name)}; "
                "give the same settings, or another --output_dir without --resume"
            )
    trainer.load_state(state)
    return state["step"]


def matching(config: Config, trainer: Trainer) -> Callable[[], MatchingScore] | None:
    """A measurement of the trunk's dense matching accuracy on the held-out images, if there are any."""
    if not config.val_data:
        return None
    source = open_images(config.val_data)
    files = [source.name(index) for index in range(min(HELD_OUT, len(source)))]
    pairs = held_out_pairs(files, config.image_size, distance=config.distance)
    return lambda: encoder_matching(trainer.core.encoder, pairs)["trunk"]


def introduce(config: Config, source: Images, loader: Loader, trainer: Trainer, process: Process) -> None:
    """Print what is going to happen."""
    precision = {None: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}[trainer.amp_dtype]
    print(
        f"{config.loss} on {config.arch}: {len(source)} images, batch {config.batch_size}, "
        f"{config.epochs} epochs of {len(loader)} steps, peak learning rate {trainer.optimizer.defaults['lr']:.4g}\n"
        f"{process.world_size} process(es) on {process.device.type}, {precision}, "
        f"{loader.workers} loader worker(s) each; writing to {config.output_dir}",
        flush=True,
    )


def report(config: Config, metrics: Metrics, step: Step, loss: float) -> None:
    """Write a step's numbers and print its line."""
    values = {
        "loss": loss,
        "lr": step.lr,
        "momentum": step.momentum,
        "images_per_second": config.batch_size / step.seconds,
        "data_wait": step.data_seconds / step.seconds,
    }
    if config.loss == "pixpro" and config.instance_weight == 0:
        values["agreement"] = -loss / 4
    metrics.write(step.number, {"epoch": step.epoch + 1, **values})
    print(metrics.line(step.number, step.epoch, config.epochs, values), flush=True)


def save(config: Config, trainer: Trainer, step: Step, folder: Path, last_step: int) -> None:
    """Write the checkpoint of a finished epoch, and a numbered copy every --save_every epochs and at the end."""
    state = {**trainer.state(), "step": step.number, "epoch": step.epoch + 1, "config": dataclasses.asdict(config)}
    checkpoint.save(folder / checkpoint.LAST, state)
    if (step.epoch + 1) % config.save_every == 0 or step.number == last_step:
        checkpoint.save(folder / f"{step.epoch + 1:04d}.pth.tar", state)


def conclude(folder: Path, before: MatchingScore | None, after: MatchingScore | None) -> None:
    """Print what was written, what was learned, and what to do next."""
    last = folder / checkpoint.LAST
    print(f"\nwritten to {folder}: {', '.join(sorted(path.name for path in folder.glob('[!.]*')))}")
    if after:
        untrained = f"{before.accuracy:.3f} before training, " if before else ""
        print(
            f"dense matching accuracy on {after.images} held-out images: {untrained}{after.accuracy:.3f} now, "
            f"{after.chance:.3f} by chance"
        )
    print(
        f"next: tensorboard --logdir {folder}\n"
        f"      cd downstream && python convert-pretrain-to-detectron2.py {last.resolve()} pixpro.pkl\n"
        f"      python -c \"import pixpro; print(pixpro.load_backbone('{last}'))\""
    )


if __name__ == "__main__":
    sys.exit(main())
