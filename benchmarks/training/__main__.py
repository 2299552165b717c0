"""Training speed against RecTools, RePlay and RecBole: an epoch's seconds, and the time to RecTools' best NDCG@10.

    python -m benchmarks.training [--preset movies-small] [--threads 1 2] [--rounds 3] [--table benchmarks/training.md]

All arms get the same events, split by Nightloom's own prepare (leave-one-out), the same shape and the same cores; arms take turns, so
that a busy machine is busy for all. Peers are timed as installed and with the allocator settings that Nightloom's launcher has too.
Results are kept under `<mlruns>/bench/`, and a part or an arm that is run again replaces its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.training import table
from benchmarks.training.arms import ARMS, Arm, Shape
from benchmarks.training.environments import PeerMissing, python_of
from benchmarks.training.made_up import made_up_shop
from benchmarks.training.race import ArmFailed, Limits, run
from benchmarks.training.task import BenchTask, make_task
from nightloom.config import RunConfig, load_config, load_preset
from nightloom.core.errors import InputError

LEAVE_ONE_OUT = "evaluation.protocols=[leave_one_out]"
SLOW_SECONDS = 60.0
"""An arm whose epoch takes more CPU seconds than this is timed by one epoch, once."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    console = Console()
    root = Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")).resolve()  # peers run in folders of their own
    shape = Shape(given.dim, given.blocks, given.heads, given.length)
    try:
        config = config_of(given, root)
        home = root / "bench" / f"{config.name}-d{shape.dim}-b{shape.blocks}-h{shape.heads}-l{shape.length}"
        task = make_task(config, root, home / "task")
    except InputError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    pythons = found(given.arms, console, install=not given.quick)
    arms = [arm for arm in given.arms if arm in pythons]
    bench = Bench(task, shape, pythons, home, given, console)
    for threads in given.threads if "epochs" in given.parts else ():
        bench.epochs(arms, threads)
    if "quality" in given.parts:
        bench.quality(arms, given.threads[0])
    results = table.read(home)
    for one in table.tables(results):
        console.print(table.rich(one))
    if given.table:
        given.table.write_text(table.markdown(results, config.name, task, shape, given.seed, sys.argv[1:]), encoding="utf-8")
    return 0


class Bench:
    """The two parts of the benchmark, over some arms."""

    def __init__(
        self, task: BenchTask, shape: Shape, pythons: dict[Arm, Path], home: Path, given: argparse.Namespace, console: Console
    ) -> None:
        self.task, self.shape, self.pythons, self.home, self.given, self.console = task, shape, pythons, home, given, console

    def epochs(self, arms: list[Arm], threads: int) -> None:
        """Time epochs, arm after arm, round after round; a run's first epoch warms up and does not count."""
        turns = [(arm, tuned) for arm in arms for tuned in ((True,) if arm.peer is None else (False, True))]
        measured: dict[tuple[Arm, bool], dict[str, Any]] = {}
        slow: set[tuple[Arm, bool]] = set()
        for number in range(1, self.given.rounds + 1):
            for arm, tuned in turns:
                if (arm, tuned) in slow:
                    continue
                label = f"{arm.name}{'' if tuned else ' as installed'}, {threads} threads, round {number}"
                # The first epoch that takes longer than SLOW_SECONDS ends the run.
                limits = Limits(self.given.epochs + 1, cpu_seconds=SLOW_SECONDS * (self.given.epochs + 1))
                if (arm, tuned) not in measured:
                    limits = Limits(self.given.epochs + 1, cpu_seconds=min(SLOW_SECONDS, limits.cpu_seconds))
                outcome = self._run(arm, limits, threads, tuned, label)
                if outcome is None:
                    slow.add((arm, tuned))
                    continue
                kept = measured.setdefault((arm, tuned), {"arm": arm.name, "tuned": tuned, "epochs": [], "peak_mb": 0.0})
                kept["epochs"] += outcome["epochs"][1:] or outcome["epochs"]
                kept["peak_mb"] = max(kept["peak_mb"], outcome["peak_mb"])
                if len(outcome["epochs"]) == 1:
                    slow.add((arm, tuned))
                self._keep(f"epochs/{threads}.json", list(measured.values()))

    def quality(self, arms: list[Arm], threads: int) -> None:
        """Train each arm until its validation NDCG@10 no longer rises, or its CPU time is spent."""
        for arm in arms:
            own = arm.peer is None
            patience = self.task.config.training.patience if own else self.given.patience
            most = self.task.config.training.epochs if own else self.given.most_epochs
            limits = Limits(min(most, self.given.most_epochs), patience, self.given.cpu_limit)
            outcome = self._run(arm, limits, threads, True, f"{arm.name}, to its best")
            if outcome is not None:
                self._keep(f"quality/{arm.key}.json", outcome)

    def _run(self, arm: Arm, limits: Limits, threads: int, tuned: bool, label: str) -> dict[str, Any] | None:
        def tell(line: dict[str, Any]) -> None:
            quality = f", validation NDCG@10 {line['ndcg']:.4f}" if line.get("ndcg") is not None else ""
            self.console.print(
                f"{label}: epoch {line['epoch']}, {line['seconds']:.2f} s, {line['cpu_seconds']:.2f} CPU s{quality}", style="dim"
            )

        try:
            return run(
                arm,
                self.task,
                self.shape,
                limits,
                python=self.pythons[arm],
                threads=threads,
                tuned=tuned,
                seed=self.given.seed,
                tell=tell,
            ).plain()
        except ArmFailed as error:
            self.console.print(f"{label}: {error}", style="yellow", markup=False)
            return None

    def _keep(self, name: str, content: Any) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def found(arms: list[Arm], console: Console, *, install: bool) -> dict[Arm, Path]:
    """The Python of each arm that can run here; why the others can not is printed."""
    pythons: dict[Arm, Path] = {}
    for arm in arms:
        try:
            pythons[arm] = Path(sys.executable) if arm.peer is None else python_of(arm.peer, console.print, install=install)
        except PeerMissing as error:
            console.print(f"{arm.name} is left out: {error}", style="yellow", markup=False)
    return pythons


def config_of(given: argparse.Namespace, root: Path) -> RunConfig:
    """The run's config: a preset, a file, or with --quick a made-up shop."""
    overrides = [*given.set, LEAVE_ONE_OUT]
    if given.quick:
        return load_config(made_up_shop(root / "bench" / "made-up"), overrides)
    return load_config(given.config, overrides) if given.config else load_preset(given.preset, overrides)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; --quick sets what is not said to the smallest that shows anything."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="movies-small")
    parser.add_argument("--config", type=Path, help="a config file instead of a preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--quick", action="store_true", help="a made-up shop, one round, only peers that are installed")
    parser.add_argument("--arms", nargs="+", choices=[arm.key for arm in ARMS], default=[arm.key for arm in ARMS])
    parser.add_argument("--parts", nargs="*", choices=["epochs", "quality"], default=["epochs", "quality"], help="none: only the tables")
    parser.add_argument("--threads", nargs="+", type=int, default=[1], help="cores an arm gets; quality is timed on the first")
    parser.add_argument("--rounds", type=int, help="turns of each arm (default 3)")
    parser.add_argument("--epochs", type=int, help="epochs timed in a turn, after one that warms up (default 2)")
    parser.add_argument("--patience", type=int, default=20, help="of peers, in epochs; Nightloom has its own")
    parser.add_argument("--most-epochs", type=int, help="most epochs to the best quality (default 400)")
    parser.add_argument("--cpu-limit", type=float, default=600.0, help="CPU seconds of training to the best quality, of each peer")
    parser.add_argument("--dim", type=int)
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--length", type=int)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--table", type=Path, help="Markdown file for the tables")
    given = parser.parse_args(arguments)
    usual = {"rounds": 3, "epochs": 2, "most_epochs": 400, "dim": 64, "blocks": 2, "length": 200}
    quick = {"rounds": 1, "epochs": 1, "most_epochs": 3, "dim": 16, "blocks": 1, "length": 20}
    for name, value in (quick if given.quick else usual).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    given.arms = [arm for arm in ARMS if arm.key in given.arms]
    return given


if __name__ == "__main__":
    raise SystemExit(main())
