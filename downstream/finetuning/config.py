"""Config file + overlay + command line + machine -> the detectron2 config of one fine-tuning run."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from downstream.detection.recipes import SCALED_KEYS, scaled_settings
from downstream.finetuning.config_check import lookup
from pixpro.errors import UserError

NORMS = ("MODEL.RESNETS.NORM", "MODEL.FPN.NORM", "MODEL.ROI_BOX_HEAD.NORM", "MODEL.ROI_MASK_HEAD.NORM")


def build_config(
    files: Sequence[Path],
    *,
    weights: str | None,
    output_dir: Path | None,
    options: list[str],
    processes: int,
    device: str,
    iterations: int | None = None,
    lr: float | None = None,
    length: float = 1.0,
) -> tuple[CfgNode, list[str]]:
    """The config, and a line for each thing that was changed because of the batch or the machine.

    Later sources win: files in their order, weights and output_dir, options ("KEY", "VALUE", ...). processes: over all
    machines. The learning rate and the schedule belong to the batch that the files set; where the options set another
    (SOLVER.IMS_PER_BATCH, or SOLVER.REFERENCE_WORLD_SIZE as in detectron2), those not set there are scaled.
    length: of the schedule, in the files'; iterations, lr: in place of those that follow from all that.
    """
    cfg = get_cfg()
    for file in files:
        if not file.is_file():
            raise UserError(f"no config file {file}")
        try:
            cfg.merge_from_file(str(file))
        except Exception as error:  # broken YAML, an unknown key, a value of another type, ...
            raise UserError(f"cannot use the config file {file}: {error}") from error
    reference = cfg.SOLVER.IMS_PER_BATCH
    if weights is not None:
        cfg.MODEL.WEIGHTS = weights
    cfg.OUTPUT_DIR = str(output_dir or Path(__file__).resolve().parents[1] / "output" / files[0].stem)
    if len(options) % 2:
        raise UserError(f"config changes come as KEY VALUE pairs; {options[-1]!r} has no value")
    try:
        cfg.merge_from_list(options)
    except (KeyError, AssertionError, ValueError) as error:
        raise UserError(f"cannot apply the config changes {' '.join(options)}: {error}") from error
    notes = []
    if cfg.SOLVER.REFERENCE_WORLD_SIZE > 0:
        cfg.SOLVER.IMS_PER_BATCH = cfg.SOLVER.IMS_PER_BATCH * processes // cfg.SOLVER.REFERENCE_WORLD_SIZE
        cfg.SOLVER.REFERENCE_WORLD_SIZE = processes
    batch = cfg.SOLVER.IMS_PER_BATCH
    if batch < 1 or batch % processes:
        raise UserError(
            f"a batch of {batch} images does not spread over {processes} processes; choose --num-gpus or "
            "SOLVER.IMS_PER_BATCH so that it does (learning rate and schedule follow)"
        )
    if batch != reference:
        notes.append(scale_to_batch(cfg, batch, reference, given=options[::2]))
    notes += set_length(cfg, iterations, lr, length, given=options[::2])
    if device == "cpu":
        notes.append(use_cpu(cfg))
    cfg.freeze()
    return cfg, notes


def scale_to_batch(cfg: CfgNode, batch: int, reference: int, *, given: Iterable[str]) -> str:
    """Scale what the options did not give, in place; returns the line that says so."""
    old = {key: lookup(cfg, key) for key in SCALED_KEYS}
    changes = {key: value for key, value in scaled_settings(old, batch, reference).items() if key not in given}
    for key, value in changes.items():
        cfg.merge_from_list([key, value])
    said = ", ".join(f"{key} {value}" for key, value in changes.items() if value)
    return f"batch {batch} instead of {reference}, linear rule: {said or 'nothing to scale, all of it was given'}"


def set_length(
    cfg: CfgNode, iterations: int | None, lr: float | None, length: float, *, given: Iterable[str]
) -> Iterable[str]:
    """Set another length or learning rate, in place, with drops at the same shares; yields the lines that say so."""
    for flag, value, key in (("--iterations", iterations, "SOLVER.MAX_ITER"), ("--lr", lr, "SOLVER.BASE_LR")):
        if value and key in given:
            raise UserError(f"{flag} and {key} say the same; give one of them")
    solver = cfg.SOLVER
    if length != 1 and not iterations and "SOLVER.MAX_ITER" not in given:
        iterations = max(1, round(solver.MAX_ITER * length))
    if iterations:
        scaled_steps = {round(step / solver.MAX_ITER * iterations) for step in solver.STEPS}
        steps = tuple(sorted(step for step in scaled_steps if 0 < step < iterations))  # detectron2 takes no others
        solver.STEPS = solver.STEPS if "SOLVER.STEPS" in given else steps
        solver.WARMUP_ITERS = min(solver.WARMUP_ITERS, iterations // 4)
        yield f"{iterations} iterations instead of {solver.MAX_ITER}, steps {list(solver.STEPS)}"
        solver.MAX_ITER = iterations
    if lr:
        yield f"learning rate {lr:g} instead of {solver.BASE_LR:g}"
        solver.BASE_LR = lr


def use_cpu(cfg: CfgNode) -> str:
    """Make the config run without a GPU, in place; returns the line that says so."""
    if cfg.SOLVER.AMP.ENABLED:
        raise UserError("detectron2 has mixed precision on GPUs only; leave SOLVER.AMP.ENABLED False here")
    cfg.MODEL.DEVICE = "cpu"
    for key in NORMS:
        if lookup(cfg, key) in ("SyncBN", "naiveSyncBN"):
            cfg.merge_from_list([key, "BN"])
    return (
        "no GPU: one CPU process, BN for SyncBN; the published sizes take minutes per iteration there, "
        "--trial takes small ones"
    )
