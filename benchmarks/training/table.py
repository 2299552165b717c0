"""Medians, ratios and how they are shown: on a terminal and as Markdown."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.training import environments
from benchmarks.training.arms import ARMS, EQUAL_WORK, QUALITY_TARGET, REFERENCE, Arm, Shape
from benchmarks.training.task import BenchTask


@dataclass(frozen=True)
class Cells:
    """A table as text."""

    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Results:
    """What is kept in a benchmark's folder.

    Attributes:
        epochs: threads -> one dict an arm and setting.
        quality: arm -> what `Outcome.plain` gave.
    """

    epochs: dict[int, list[dict[str, Any]]]
    quality: dict[Arm, dict[str, Any]]


def read(home: Path) -> Results:
    """Read what has been measured so far."""
    epochs = {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in sorted(home.glob("epochs/*.json"))}
    files = {arm: home / "quality" / f"{arm.key}.json" for arm in ARMS}
    return Results(epochs, {arm: json.loads(path.read_text(encoding="utf-8")) for arm, path in files.items() if path.exists()})


def tables(results: Results) -> list[Cells]:
    """All tables, those of epochs first."""
    made = [epochs_table(threads, measured) for threads, measured in results.epochs.items()]
    return [*made, quality_table(results.quality)] if results.quality else made


def epochs_table(threads: int, measured: list[dict[str, Any]]) -> Cells:
    """Medians of an epoch, and how many of Nightloom's epochs fit into each."""

    def middle(one: dict[str, Any], key: str) -> float:
        return median(line[key] for line in one["epochs"])

    references = [next((one for one in measured if one["arm"] == arm.name), None) for arm in (REFERENCE, EQUAL_WORK)]
    rows = []
    for one in measured:
        spent = {key: middle(one, key) for key in ("cpu_seconds", "seconds")}
        ratios = [DASH if other is None else times(spent[key], middle(other, key)) for other in references for key in spent]
        named = one["arm"] if one["tuned"] else f"{one['arm']}, as installed"
        rows.append([named, str(len(one["epochs"])), *(f"{value:.2f}" for value in spent.values()), *ratios, f"{one['peak_mb']:,.0f}"])
    head = ["one epoch", "timed", "CPU s", "wall s", "CPU / Nightloom", "wall", "CPU / Nightloom, equal work", "wall", "peak MiB"]
    return Cells(f"An epoch on {threads} core{'s' if threads > 1 else ''}", head, rows)


def quality_table(quality: dict[Arm, dict[str, Any]]) -> Cells:
    """Best validation NDCG@10 of each arm, and the training time to it and to that of RecTools with its full softmax."""
    best_of = {arm: max(line["ndcg"] for line in outcome["epochs"]) for arm, outcome in quality.items()}
    target = best_of.get(QUALITY_TARGET)
    own = None if target is None else spent_until(quality[QUALITY_TARGET]["epochs"], target)
    rows = []
    for arm, outcome in quality.items():
        best = best_of[arm]
        to_best, to_target = spent_until(outcome["epochs"], best), None if target is None else spent_until(outcome["epochs"], target)
        share = DASH if own is None or to_target is None else f"{to_target['cpu_seconds'] / max(own['cpu_seconds'], 1e-9):.2f}"
        reached = DASH if to_target is None else f"{to_target['cpu_seconds']:.0f} ({to_target['epoch']})"
        test = f"{outcome['test']['hr_at_10']:.3f} / {outcome['test']['ndcg_at_10']:.4f}"
        if "fused_hr_at_10" in outcome["test"]:
            test += f"; with scorers {outcome['test']['fused_hr_at_10']:.3f} / {outcome['test']['fused_ndcg_at_10']:.4f}"
        seconds = f"{to_best['cpu_seconds']:.0f} ({to_best['epoch']})" if to_best else DASH
        end = f"{outcome['ended']}, {len(outcome['epochs'])} epochs"
        rows.append([arm.name, f"{best:.4f}", seconds, reached, share, test, f"{outcome['peak_mb']:,.0f}", end])
    head = ["to quality", "best validation NDCG@10", "CPU s to it (epoch)", "CPU s to RecTools' best (epoch)", "share of RecTools' own"]
    return Cells("Time to quality", [*head, "test HR@10 / NDCG@10", "peak MiB", "ended by"], rows)


def spent_until(epochs: list[dict[str, Any]], quality: float) -> dict[str, Any] | None:
    """Training time up to the first epoch that is at least this good, None where none is."""
    cpu = wall = 0.0
    for line in epochs:
        cpu, wall = cpu + line["cpu_seconds"], wall + line["seconds"]
        if line["ndcg"] >= quality:
            return {"epoch": line["epoch"], "cpu_seconds": cpu, "seconds": wall}
    return None


def rich(cells: Cells) -> Table:
    """For a terminal."""
    table = Table(title=cells.title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for number, name in enumerate(cells.head):
        table.add_column(name, justify="right" if number else "left")
    for row in cells.rows:
        table.add_row(*row)
    return table


def markdown(results: Results, name: str, task: BenchTask, shape: Shape, seed: int, arguments: list[str]) -> str:
    """The whole page: tables, what they mean, and when, where and how they were made."""
    parts = [
        "# Training speed against peers",
        NOTES,
        f"Data: {_data(name, task, shape.length)} Shape of all: {_shape(shape)}; seed {seed} (one seed).",
    ]
    for cells in tables(results):
        lines = ["|" + "|".join(f" {cell} " for cell in row) + "|" for row in (cells.head, *cells.rows)]
        lines.insert(1, "|---" * len(cells.head) + "|")
        parts += [f"## {cells.title}", "\n".join(lines)]
    return "\n\n".join([*parts, conditions(arguments)]) + "\n"


DASH = "-"

NOTES = """\
All arms get the same training events, are asked for the same users, and are scored by the same code: lists over the whole catalogue,
seen items left out. Seconds are those of training; looks at the validation users are not counted. "As installed" is without, the
other rows are with OMP_WAIT_POLICY=PASSIVE, GOMP_SPINCOUNT=0, MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=20000000000; Nightloom's
launcher sets the latter two itself. Nightloom trains on every event of a history, in windows; RecTools and RePlay on the latest that
fit the length; RecBole makes an example of every prefix. Equal work is what
RecTools' softmax does: ids alone, the latest events, batches of 128. NDCG@10 up to
the best is that of the network alone; Nightloom's scorers are added only in the test column."""


def times(value: float, reference: float) -> str:
    """A ratio as people read it."""
    return f"{value / max(reference, 1e-9):.2f}x"


def conditions(arguments: list[str]) -> str:
    """When, where and how."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    peers = ", ".join(environments.version(peer) for peer in dict.fromkeys(arm.peer for arm in ARMS) if peer)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu}), load average {os.getloadavg()[0]:.1f} at the end, "
        f"Python {platform.python_version()}, torch {version('torch')}, {peers}, at {git}.\n"
        f"Command: `python -m benchmarks.training {' '.join(arguments)}`."
    )


def _data(name: str, task: BenchTask, length: int) -> str:
    lengths = task.sequences.train_end - task.sequences.offsets[:-1]
    latest = "" if lengths.max() <= length else f" ({int(lengths.clip(max=length).sum()):,} among the latest {length} of a user)"
    return (
        f"{name}, leave-one-out: {task.sequences.n_users:,} users, {task.sequences.n_items:,} items, {int(lengths.sum()):,} training events"
        f"{latest}, {len(task.queries('validation')):,} users asked."
    )


def _shape(shape: Shape) -> str:
    return f"width {shape.dim}, {shape.blocks} blocks, {shape.heads} heads, length {shape.length}"
