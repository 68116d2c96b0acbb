"""A run of two ranks on GPUs of which one is killed: how long the other needs to end, and with which exit code.

    python benchmarks/gpu/killed.py --json killed.json

Expected: the launcher names the killed process, ends the rest within seconds and exits with 69; the last checkpoint can
be read and a second start with --resume auto goes on from it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.pipeline import photos

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds until the first rows


def children(pid: int) -> list[int]:
    """Processes that a process has started and that train, by Linux's /proc."""
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def rows(output: Path) -> int:
    """Steps that were reported."""
    file = output / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when the run ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="pixpro-killed-") as folder:
        data, output, log = photos.write(Path(folder, "photos"), 64), Path(folder, "run"), Path(folder, "log")
        command = [sys.executable, "train.py", "--data", str(data), "--output_dir", str(output), "--arch", "resnet18"]
        command += ["--multiprocessing-distributed", "--nproc", str(args.ranks), "--batch_size", str(16 * args.ranks)]
        command += ["--epochs", "100000", "--log_every", "5", "--save_every", "10steps", "--image_size", "112"]
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
            deadline = time.monotonic() + PATIENCE
            while rows(output) < 5 and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.5)
            reported, victims = rows(output), children(process.pid) if process.poll() is None else []
            started = time.monotonic()
            if victims:
                os.kill(victims[-1], signal.SIGKILL)
            try:
                code = process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                code = None
        told = {"rows_before": reported, "killed": bool(victims), "exit_code": code}
        told |= {"seconds_to_the_end": round(time.monotonic() - started, 1)}
        told |= {"checkpoint": (output / "last.pth.tar").exists(), "tail": log.read_text().splitlines()[-5:]}
    print(json.dumps(told))
    if args.json:
        args.json.write_text(json.dumps(told) + "\n")
    return 0 if told["killed"] and code == 69 and told["checkpoint"] else 1


if __name__ == "__main__":
    sys.exit(main())
