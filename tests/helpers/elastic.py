"""Small trainings under torchrun's own agent, which starts them again when one of their processes dies.

The agent forks its processes from one that has imported everything; torchrun starts them as commands.
"""

import os
import shutil
import socket
from pathlib import Path

import torchvision
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import train
from tests.helpers import runs
from tests.helpers.sabotage import die_before_step

Victim = tuple[int, int]  # rank, global step (from 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def worker(argv: list[str], log: str, victims: list[Victim]) -> int:
    """One process of one attempt; dies if it is the victim of this attempt."""
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    output = os.open(f"{log}{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["PIXPRO_CACHE"] = f"{log}.cache"
    torchvision.models.get_model = lambda *args, **options: runs.TinyTrunk()
    if attempt < len(victims) and victims[attempt][0] == rank:
        die_before_step(victims[attempt][1])
    code = train.main(argv)
    if code:
        raise SystemExit(code)
    return attempt


def agent(argv: list[str], log: str, backend: str, victims: list[Victim]) -> None:
    """A machine's agent with two processes; exits with 0 when they finished after as many attempts as expected."""
    os.dup2(os.open(f"{log}-agent", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="test",
        rdzv_backend=backend,
        rdzv_endpoint=f"127.0.0.1:{free_port()}",
        rdzv_configs={"rank": 0, "timeout": 900} if backend == "static" else {},
        max_restarts=len(victims) + 1,
        monitor_interval=0.1,
        start_method="fork",
    )
    try:
        attempts = elastic_launch(config, worker)(argv, log, victims)
    except ChildFailedError:
        os._exit(1)
    os._exit(0 if attempts == {0: len(victims), 1: len(victims)} else 3)


class ElasticRun:
    """A run of two processes under an agent, started at once."""

    def __init__(self, argv: list[str], place: Path, backend: str, victims: list[Victim]) -> None:
        self.log = place / "log"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        self.agent = runs.server().Process(target=agent, args=(argv, str(self.log), backend, victims))
        self.agent.start()

    def wait(self) -> int | None:
        """The agent's exit code; None, and the end of all, when it is still there after minutes."""
        self.agent.join(300)
        if self.agent.is_alive():
            self.agent.terminate()  # it passes that on to its processes
            self.agent.join(60)
            self.agent.kill()
            return None
        return self.agent.exitcode

    def text(self) -> str:
        logs = [path for path in sorted(self.log.parent.glob("log*")) if path.is_file()]
        return "".join(f"{path.name}:\n{path.read_text(errors='replace')}" for path in logs)
