"""Steps of training with one worker and with two, each on a core of its own.

    python -m benchmarks.workers mlruns/stages/NAME/fine_tune/KEY/PROTOCOL/run.json [--steps 60] [--table FILE]

The run.json is that of a training a night has done. The same batches are trained on; one worker and two take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nightloom.training.distributed import World, world
from nightloom.training.launch import environment
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from nightloom.training.trainer import Fitter

WARM_UP = 10
"""Steps that are not counted: kernels are made for their shapes in them."""
HEAD = ("workers", "step, ms (median of rounds)", "CPU ms a step, all workers", "times as fast as one")


class Enough(Exception):
    """So many steps were timed."""


def main() -> None:
    """Time, and print the table; with `--worker` this is one of the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_json", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        with world() as here:
            timed(Run.load(given.run_json), here, given.steps)
        return
    said = [(count, round_of(given.run_json, count, given.steps)) for _ in range(given.rounds) for count in (1, 2)]
    rows, one = [], 0.0
    for count in (1, 2):
        wall, cpu = np.median([found for of, found in said if of == count], axis=0)
        one = one or wall
        rows.append((str(count), f"{1000 * wall:.1f}", f"{1000 * cpu:.1f}", f"{one / wall:.2f}"))
    lines = ["| " + " | ".join(row) + " |" for row in (HEAD, ("--:",) * len(HEAD), *rows)]
    text = "\n".join([*lines, "", f"Load average at the end {os.getloadavg()[0]:.1f}; {given.steps} steps, {given.rounds} rounds in turn."])
    sys.stdout.write(text + "\n")
    if given.table:
        given.table.write_text(text + "\n", encoding="utf-8")


def round_of(run_json: Path, workers: int, steps: int) -> tuple[float, float]:
    """Seconds of a step, and CPU seconds of all workers, of a training with so many workers of one thread."""
    run = [] if workers == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={workers}", "--standalone"]
    command = [sys.executable, *run, "-m", "benchmarks.workers", str(run_json), "--steps", str(steps), "--worker"]
    env = environment(workers) | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return max(one["wall"] for one in found), sum(one["cpu"] for one in found)


def timed(run: Run, here: World, steps: int) -> None:
    """Train some steps, and print what they took."""
    marks: list[tuple[float, float]] = []
    step = Fitter._step

    def marked(self: Fitter, *batch: Any) -> Any:
        if len(marks) == WARM_UP + steps:
            raise Enough
        found = step(self, *batch)
        marks.append((time.perf_counter(), time.process_time()))
        return found

    Fitter._step = marked  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        Training(replace(run, out=Path(folder)), here)()
    wall, cpu = (np.array(marks[-1]) - np.array(marks[WARM_UP - 1])) / (len(marks) - WARM_UP)
    sys.stdout.write(json.dumps({"wall": wall, "cpu": cpu}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the others are in the middle of a step, too


if __name__ == "__main__":
    main()
