"""One run of one arm in processes of its own: epochs as they pass, their seconds, CPU seconds and memory, and their lists judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training.arms import ALLOCATOR, Arm, Shape
from benchmarks.training.environments import PEERS
from benchmarks.training.task import PROTOCOL, BenchTask, judge, latest_alone
from benchmarks.training.watch import Watch
from nightloom.config import RunConfig, config_from_dict
from nightloom.core.errors import NightloomError
from nightloom.core.ranking import ranks
from nightloom.packaging.bundle import Bundle
from nightloom.training.launch import environment

POLL_SECONDS = 0.05


class ArmFailed(Exception):
    """An arm's process failed; the message holds the end of what it printed."""


@dataclass(frozen=True)
class Limits:
    """When a run ends.

    Attributes:
        epochs: most epochs.
        patience: epochs without a better validation NDCG@10; None measures epochs alone, with no lists.
        cpu_seconds: the epoch that passes this much CPU time of training is the last.
    """

    epochs: int
    patience: int | None = None
    cpu_seconds: float = 600.0


@dataclass
class Outcome:
    """What a run showed.

    Attributes:
        epochs: one dict an epoch: epoch, seconds, cpu_seconds and, where lists were asked for, ndcg (validation NDCG@10).
        peak_mb: largest resident memory of the process tree.
        test: metrics of the best epoch's lists, and of Nightloom with its scorers as `fused_...`.
        ended: "patience", "epochs" or "CPU limit".
        wall_seconds: the whole run, start-up and lists included.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    peak_mb: float = 0.0
    test: dict[str, float] = field(default_factory=dict)
    ended: str = ""
    wall_seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


Tell = Callable[[dict[str, Any]], None]


def run(
    arm: Arm, task: BenchTask, shape: Shape, limits: Limits, *, python: Path, threads: int, tuned: bool, seed: int, tell: Tell
) -> Outcome:
    """Run an arm once.

    Args:
        python: of the arm's environment.
        threads: cores that it gets.
        tuned: give a peer the allocator settings of `ALLOCATOR`; Nightloom's launcher always has its own.
        tell: called with each epoch's figures.

    Raises:
        ArmFailed: the process failed.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nightloom-bench-") as folder:
        if arm.peer is None:
            outcome = _run_nightloom(arm, task, shape, limits, Path(folder), threads, seed, tell)
        else:
            outcome = _run_peer(arm, task, shape, limits, Path(folder), python, threads, tuned, seed, tell)
    outcome.wall_seconds = round(time.monotonic() - began, 1)
    return outcome


def _run_peer(
    arm: Arm, task: BenchTask, shape: Shape, limits: Limits, folder: Path, python: Path, threads: int, tuned: bool, seed: int, tell: Tell
) -> Outcome:
    given = asdict(shape) | {"data": str(task.events), "out": str(folder), "epochs": limits.epochs, "items": task.sequences.n_items}
    given |= {"seed": seed, "lists": limits.patience is not None, "options": dict(arm.options)}
    (folder / "task.json").write_text(json.dumps(given), encoding="utf-8")
    outcome, best, spent = Outcome(ended="epochs"), {"ndcg": -1.0, "epoch": 0}, 0.0
    surroundings = os.environ | _threads(threads) | (ALLOCATOR if tuned else {})
    with _process([str(python), str(PEERS / f"{arm.peer}_sasrec.py"), str(folder / "task.json")], folder, surroundings) as (process, watch):
        if process.stdout is None or process.stdin is None:
            raise NightloomError(f"{arm.peer}: started without pipes")
        for text in process.stdout:
            line = json.loads(text)
            answer, spent = "on", spent + line["cpu_seconds"]
            if limits.patience is not None:
                line["ndcg"] = task.judge("validation", np.load(folder / "validation.npy"))["ndcg_at_10"]
                if line["ndcg"] > best["ndcg"]:
                    best, answer = line, "test"
                elif line["epoch"] - best["epoch"] >= limits.patience:
                    answer, outcome.ended = "stop", "patience"
            if spent >= limits.cpu_seconds and answer in ("on", "test") and line["epoch"] < limits.epochs:
                answer, outcome.ended = {"on": "stop", "test": "last"}[answer], "CPU limit"
            outcome.epochs.append(line)
            outcome.peak_mb = watch.peak_mb
            tell(line)
            if limits.patience is not None:
                process.stdin.write(answer + "\n")
                process.stdin.flush()
            elif outcome.ended == "CPU limit":
                process.terminate()
                break
    if limits.patience is None:
        return outcome
    outcome.test = task.judge("test", np.load(folder / "test.npy"))
    return outcome


def _run_nightloom(arm: Arm, task: BenchTask, shape: Shape, limits: Limits, folder: Path, threads: int, seed: int, tell: Tell) -> Outcome:
    """Nightloom through `python -m nightloom.training`; its look at the validation users after an epoch is not counted."""
    config = _nightloom_config(task.config, arm, shape, limits, seed)
    run_json = {"config": config.model_dump(mode="json"), "protocol": PROTOCOL, "out": str(folder / "out")}
    prepared = latest_alone(task.prepared, shape.length, folder / "prepared") if arm.latest else task.prepared.resolve()
    run_json |= {"prepared": str(prepared), "pretrained": str(task.pretrained.resolve())}
    (folder / "run.json").write_text(json.dumps(run_json), encoding="utf-8")
    command = [sys.executable, "-m", "nightloom.training", "--config", str(folder / "run.json"), "--workers", str(threads)]
    outcome, curves, told = Outcome(ended="epochs"), folder / "out" / "curves.jsonl", 0
    with _process(command, folder, environment(threads) | _threads(1)) as (process, watch):
        while True:
            ended = process.poll() is not None
            written = curves.stat().st_mtime if curves.exists() else 0.0
            lines = [line for line in _whole_lines(curves) if line["phase"] == "search"]
            if len(lines) > told:
                time.sleep(2 * POLL_SECONDS)  # so that there is a sample after the epoch's end
            for line in lines[told:]:
                trained = written - line["validation_seconds"]
                cpu = watch.cpu_at(trained) - watch.cpu_at(written - line["seconds"])
                seconds = round(line["seconds"] - line["validation_seconds"], 3)
                figures = {"epoch": line["epoch"], "seconds": seconds, "cpu_seconds": round(cpu, 4)}
                outcome.epochs.append(figures | {"ndcg": line["validation_ndcg_at_10"]})
                outcome.peak_mb = watch.peak_mb
                tell(outcome.epochs[-1])
            told = len(lines)
            if ended:
                break
            if limits.patience is None and sum(line["cpu_seconds"] for line in outcome.epochs) >= limits.cpu_seconds:
                process.terminate()
                outcome.ended = "CPU limit"
                break
            time.sleep(POLL_SECONDS)
    if limits.patience is None:
        return outcome
    if told < limits.epochs:
        outcome.ended = "patience"
    recommender = Bundle.load(folder / "out" / "bundle").recommender
    queries = task.queries("test")
    fused = ranks(recommender, queries)
    recommender.weights, recommender.reranker = {}, None
    outcome.test = judge(queries, ranks(recommender, queries).top) | {
        f"fused_{name}": value for name, value in judge(queries, fused.top).items()
    }
    return outcome


def _nightloom_config(config: RunConfig, arm: Arm, shape: Shape, limits: Limits, seed: int) -> RunConfig:
    content = config.model_dump(mode="json")
    content["model"] |= {"dim": shape.dim, "blocks": shape.blocks, "heads": shape.heads, "max_history": shape.length}
    content["training"] |= {"epochs": limits.epochs, "seed": seed, "refit": False}
    if limits.patience is None:
        content["training"]["patience"] = limits.epochs
        content["model"]["scorers"] = []  # epochs alone are timed: no fusion is chosen after them
    for key, value in arm.options.items():
        section, leaf = key.split(".")
        content[section][leaf] = value
    return config_from_dict(content)


def _threads(count: int) -> dict[str, str]:
    return {name: str(count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n"))


@contextmanager
def _process(command: list[str], folder: Path, surroundings: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], Watch]]:
    """A process under watch, ended with the block; its stderr goes to a file whose end an ArmFailed shows."""
    log = folder / "log.txt"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=surroundings, cwd=folder
        ) as process,
        Watch(process.pid) as watch,
    ):
        try:
            yield process, watch
            process.wait(60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        except BaseException:
            process.kill()
            raise
    if process.returncode not in (0, -signal.SIGTERM):
        tail = "\n".join(log.read_text(encoding="utf-8").strip().splitlines()[-15:])
        raise ArmFailed(f"{' '.join(command[1:3])} ended with {process.returncode} (-9 is most often too little memory):\n{tail}")
