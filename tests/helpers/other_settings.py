"""Another value of each setting of train.py, for the walk over what settings may do."""

from pathlib import Path

from pixpro.command_line import on_resume
from pixpro.config import Config

# Another value of each setting than that of `arguments`; PLACE stands for a folder of the test.
OTHER = {
    "data": ["PLACE/elsewhere"],
    "val_data": ["PLACE/data"],
    "demo": [],
    "plan": [],
    "recipe": [
        "small",
        "--neck",
        "none",
        "--levels",
        "3",
        "4",
        "5",
        "--instance_weight",
        "0",
        "--instance_loss=regression",
    ],
    "loss": ["pixcontrast"],
    "arch": ["resnet34"],
    "drop_path": ["0.5"],
    "neck": ["fpn"],
    "levels": ["4", "5"],
    "hidden_dim": ["16"],
    "dim": ["16"],
    "num_linear": ["2"],
    "sharpness": ["1"],
    "threshold": ["2"],
    "temperature": ["0.1"],
    "distance": ["pixel"],
    "instance_weight": ["1"],
    "instance_loss": ["contrast"],
    "instance_temperature": ["0.1"],
    "init": ["PLACE/no-such-weights"],
    "epochs": ["4"],
    "batch_size": ["8"],
    "accumulation": ["2"],
    "optimizer": ["sgd"],
    "lr_base": ["4"],
    "lr_rule": ["sqrt"],
    "warmup_epochs": ["2.5"],
    "weight_decay": ["0.5"],
    "momentum": ["0"],
    "momentum_base": ["0.5"],
    "image_size": ["64"],
    "crop_min": ["0.5"],
    "max_bad": ["0.5"],
    "multiprocessing_distributed": [],
    "nproc": ["1"],
    "workers": ["1"],
    "decode": ["gpu"],
    "amp": ["bf16"],
    "compile": [],
    "seed": ["7"],
    "timeout": ["5"],
    "deterministic": [],
    "output_dir": ["PLACE/output"],
    "resume": ["PLACE/epoch2.pth.tar"],
    "save_every": ["1ep"],
    "keep": ["1"],
    "keep_every": ["3"],
    "report": [],
    "log_every": ["2"],
    "eval_every": ["1"],
}
# Settings that only some methods have.
CONTRAST = ["--loss", "pixcontrast"]
BRANCHES = ["--arch", "timm/test_convnext"]
METHOD = {
    "drop_path": BRANCHES,
    "temperature": CONTRAST,
    "instance_temperature": ["--instance_weight", "1", "--instance_loss", "contrast"],
}


def names(kind: str) -> list[str]:
    """The settings of which another value does this to a run that is resumed."""
    return [name for name, does in on_resume(Config).items() if does == kind]


def other(name: str, place: Path) -> list[str]:
    """The arguments that give a setting another value."""
    return [f"--{name}", *(text.replace("PLACE", str(place)) for text in OTHER[name])]
