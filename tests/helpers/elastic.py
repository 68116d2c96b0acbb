"""Small trainings under torchrun, which starts them again when one of their processes dies.

`ElasticRun` has torchrun's agent alone, and forks its processes from one that has imported everything. `torchrun` is
the command itself, which starts this module as a program.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
import torchvision
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import train
from pixpro.training import loading
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
    loading.use_threads = lambda threads: torch.set_num_threads(1)  # results depend on it: as in undisturbed runs
    torchvision.models.get_model = lambda *args, **options: runs.TinyTrunk()
    if attempt < len(victims) and victims[attempt][0] == rank:
        die_before_step(victims[attempt][1])
    code = train.main(argv)
    if code:
        raise SystemExit(code)
    return attempt


def agent(
    argv: list[str], log: str, backend: str, victims: list[Victim], port: int, machines: int, machine: int
) -> None:
    """The agent of one machine; two processes in all. Its exit code is 0 when they have finished."""
    os.dup2(os.open(f"{log}-agent{machine}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    config = LaunchConfig(
        min_nodes=machines,
        max_nodes=machines,
        nproc_per_node=2 // machines,
        run_id="test",
        rdzv_backend=backend,
        rdzv_endpoint=f"127.0.0.1:{port}",
        rdzv_configs={"rank": machine, "timeout": 900} if backend == "static" else {},
        max_restarts=len(victims) + 1,
        monitor_interval=0.1,
        start_method="fork",
    )
    try:
        attempts = elastic_launch(config, worker)(argv, log, victims)
    except ChildFailedError:
        os._exit(1)
    with open(f"{log}-attempts{machine}", "w") as file:
        file.write(" ".join(str(attempt) for attempt in attempts.values()))
    os._exit(0)


class ElasticRun:
    """A run of two processes under the agents of one or two machines, started at once."""

    def __init__(self, argv: list[str], place: Path, backend: str, victims: list[Victim], machines: int = 1) -> None:
        place.mkdir()
        self.log, port = place / "log", free_port()
        own = [(argv, str(self.log), backend, victims, port, machines, machine) for machine in range(machines)]
        self.agents = [runs.server().Process(target=agent, args=each) for each in own]
        for each in self.agents:
            each.start()

    def wait(self) -> list[int | None]:
        """The agents' exit codes; None, and the end of all, for one that is still there after minutes."""
        codes = []
        for each in self.agents:
            each.join(300)
            codes.append(each.exitcode)
            if each.is_alive():
                each.terminate()  # it passes that on to its processes
                each.join(60)
                each.kill()
        return codes

    def attempts(self) -> list[str]:
        """For each machine, how often the processes of its last attempt had been started before."""
        return [path.read_text() for path in sorted(self.log.parent.glob("log-attempts*"))]

    def text(self) -> str:
        logs = [path for path in sorted(self.log.parent.glob("log*")) if path.is_file()]
        return "".join(f"{path.name}:\n{path.read_text(errors='replace')}" for path in logs)


def torchrun(argv: list[str], place: Path, backend: str, victims: list[Victim]) -> tuple[int, str]:
    """Exit code and output of the command torchrun with two processes of one machine."""
    place.mkdir()
    port = free_port()
    meeting = {"static": ["--node-rank=0", "--master-addr=127.0.0.1", f"--master-port={port}"]}
    meeting["c10d"] = [f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--monitor-interval=0.1"]
    command += [f"--max-restarts={len(victims) + 1}", f"--rdzv-backend={backend}", *meeting[backend]]
    told = json.dumps([argv, str(place / "log"), victims])
    environment = os.environ | {"PYTHONPATH": str(runs.ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "tests.helpers.elastic", told],
        cwd=runs.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr + "".join(log.read_text() for log in place.glob("log[01]"))


if __name__ == "__main__":
    worker(*json.loads(sys.argv[1]))
