"""Small real trainings in processes of their own, cheap enough to be killed a hundred times.

They are forked from a server that has imported everything once. Only the backbone is replaced, by a tiny one.
"""

import atexit
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torchvision
from torch import nn

import train
from pixpro.checkpoints import checkpoint
from pixpro.checkpoints.checkpoint import checksum
from tests.helpers.pictures import folder

ROOT = Path(__file__).parents[2]
IMAGES, BATCH, EPOCHS = 16, 4, 3
STEPS = IMAGES // BATCH * EPOCHS
Act = Callable[[], None]


class TinyTrunk(nn.Module):
    """What the encoder takes from a ResNet, of 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.maxpool = nn.MaxPool2d(4)
        for number in range(1, 5):
            block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            self.add_module(f"layer{number}", block)
        self.fc = nn.Linear(8, 8)


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    """A command line of a small run."""
    return [
        *("--data", str(data), "--output_dir", str(output), "--arch", "resnet18", "--hidden_dim", "8", "--dim", "8"),
        *("--image_size", "32", "--batch_size", str(BATCH), "--epochs", str(EPOCHS), "--workers", "0", "--amp", "off"),
        *(
            "--log_every",
            "1",
            "--save_every",
            "2steps",
            "--keep_every",
            "2",
            "--lr_base",
            "8",
            "--warmup_epochs",
            "1",
            *more,
        ),
    ]


def pictures(path: Path) -> Path:
    """The images of all these runs, with a name that has to be escaped wherever it is shown."""
    data = folder(path, IMAGES)
    (data / "000.jpg").rename(data / "<b>0\n\x1b[31m.jpg")
    return data


def _main(argv: list[str], log: str, environment: dict[str, str], prepare: Act | None) -> None:
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment, PIXPRO_CACHE=f"{log}.cache")
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[os.getpid() % len(os.sched_getaffinity(0))]})
    torchvision.models.get_model = lambda *args, **options: TinyTrunk()
    if prepare is not None:
        prepare()
    code = train.main(argv)
    os._exit(code)


def server() -> multiprocessing.context.BaseContext:
    """A context whose processes start with everything imported."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.runs", "tests.helpers.sabotage"])
    return context


class Run:
    """A run in one or several processes, started at once; prepare is called in each before it trains."""

    def __init__(self, argv: list[str], prepare: Act | None = None, ranks: int = 1, **environment: str) -> None:
        self.place = tempfile.mkdtemp(prefix="run-")
        atexit.register(shutil.rmtree, self.place, ignore_errors=True)
        self.logs = [Path(self.place, f"log{rank}") for rank in range(ranks)]
        if ranks > 1:
            meeting = {"PIXPRO_RENDEZVOUS": f"file://{self.place}/store", "WORLD_SIZE": str(ranks)}
            environment = meeting | environment
        self.processes = []
        for rank, log in enumerate(self.logs):
            own = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {})
            process = server().Process(target=_main, args=(argv, str(log), own, prepare))
            process.start()
            self.processes.append(process)

    def signal(self, number: int, rank: int = 0) -> None:
        """Send a signal, if the process is still there."""
        process = self.processes[rank]
        if process.is_alive():
            os.kill(process.pid, number)

    def wait(self) -> list[int]:
        """The exit codes, after the end; a process still there after minutes is killed and has none."""
        for process in self.processes:
            process.join(240)
            if process.is_alive():
                process.kill()
        return [process.exitcode for process in self.processes]

    def text(self, rank: int = 0) -> str:
        """What a process printed."""
        return self.logs[rank].read_text(errors="replace") if self.logs[rank].exists() else ""


def weights(output: Path) -> str:
    """A fingerprint of all that training changes: weights, statistics, optimizer."""
    state = checkpoint.load(output / "last.pth.tar")
    return checksum({name: state[name] for name in ("model", "optimizer", "scaler", "step", "epoch")})


def rows(output: Path) -> list[tuple]:
    """Step, loss and learning rate of each row of metrics; none of a run that was stopped before its first step."""
    file = output / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(row["step"], row["loss"], row["lr"]) for row in map(json.loads, lines)]
