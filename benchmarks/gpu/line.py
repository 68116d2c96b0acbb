"""One measurement of `first_gpu.sh`: run a command within the time that its part has left, and note what came of it.

    python benchmarks/gpu/line.py --out DIR --part runs --until 1700000000 bf16 -- python benchmarks/train.py ...

Appends a row to DIR/results.jsonl: part, name, command, exit code, seconds, the last lines it printed, and the content
of DIR/PART-NAME.json where the command wrote that ({json} in its arguments). Whatever the command does, this exits with
0: a measurement that fails is a row, not the end of the others. --needs N: "not run" on fewer GPUs.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import torch

LEAST = 20.0  # seconds below which nothing is started any more
TAIL = 12  # lines of output in a row


def run(command: list[str], log: Path, seconds: float) -> int | None:
    """The exit code of a command, whose output goes to a file; None when it took longer, and was ended."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def main(argv: list[str] | None = None) -> int:
    """Run, note, go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", required=True)
    parser.add_argument("--until", type=float, required=True, help="when the part ends, in seconds since 1970")
    parser.add_argument("--needs", type=int, default=1, help="GPUs")
    parser.add_argument("name")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    base = args.out / f"{args.part}-{args.name}"
    found, log = base.with_suffix(".json"), base.with_suffix(".log")
    command = [word.replace("{json}", str(found)) for word in args.command]
    row = {"part": args.part, "name": args.name, "command": shlex.join(command)}
    left, gpus, started = args.until - time.time(), torch.cuda.device_count(), time.time()
    if gpus < args.needs:
        row["not_run"] = f"needs {args.needs} GPU(s), there are {gpus}"
    elif left < LEAST:
        row["not_run"] = "the time of this part was over"
    else:
        try:
            code = run(command, log, left)
        except OSError as error:
            row["not_run"] = str(error)
        else:
            row |= {"exit_code": code, "timed_out": code is None, "seconds": round(time.time() - started, 1)}
            row["tail"] = log.read_text(errors="replace").splitlines()[-TAIL:]
            if found.exists():
                row["result"] = json.loads(found.read_text())
    row |= {"at": datetime.now().isoformat(timespec="seconds"), "torch": torch.__version__}
    row["device"] = torch.cuda.get_device_name() if gpus else "CPU"
    with (args.out / "results.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    state = row.get("not_run") or ("timed out" if row["timed_out"] else f"exit code {row['exit_code']}")
    print(f"{args.part:8} {args.name:24} {state}, {row.get('seconds', 0)} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
