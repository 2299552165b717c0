"""How near the service's reasons come to long runs, whether what they say is true, and what they cost.

    make nightly                                   # trains the model
    python -m benchmarks.explain [--root mlruns] [--name movies-small] [--table FILE]

The estimator is fitted as a night does it, to some users; all figures are of other users. Values are of five items of each user's list,
the latest 50 events told apart. CPU time is the process's own, one thread.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nightloom.core.sequences import Histories, Sequences
from nightloom.core.streaming import queries_of
from nightloom.explain.explain import FIT_SAMPLES
from nightloom.explain.fit import RIDGE, LongRun, fit, long_runs, quality
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.runs.stages import Manifest
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.attribution import PLAYERS, Estimator, history_contributions
from nightloom.serving.reasons.coalitions import log_softmax, subsets
from nightloom.serving.reasons.reasons import reasons

FITTED, TESTED, ASKED, LONG = 40, 200, 6_000, 10
"""Users of the fit and of the test; evaluations of a long run; items of an answer that is timed."""
TIMED, CHECKED = 60, 1_000
"""Answers that are timed, and names of events that are checked against the bundle."""


@dataclass(frozen=True)
class Made:
    """A night's model, and the last query of each of its test users, in a drawn order."""

    bundle: Bundle
    engine: Engine
    histories: Histories


def made_of(root: Path, name: str, scratch: Path, seed: int = 0) -> Made:
    """The model of the last night of a name."""
    manifests = root / "nights" / name / "latest" / "manifests"
    tuned, prepared = (Manifest.load(manifests / f"{stage}.json").path for stage in ("fine_tune", "prepare"))
    protocol = next(path.parent.name for path in sorted(tuned.glob("*/bundle")))
    write_serving(tuned / protocol / "bundle", scratch / "serving")
    queries = queries_of(protocol, Sequences.load(prepared / f"sequences_{protocol}.npz"), "test", exclude_seen=True)
    rows = np.flatnonzero(np.diff(queries.users, append=-1))
    rows = np.random.default_rng(seed).permutation(rows[queries.histories.lengths[rows] >= 5])
    histories = replace(queries.histories.take(rows).packed(), prefixes=None)
    return Made(Bundle.load(tuned / protocol / "bundle"), Engine.open(scratch / "serving"), histories)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("mlruns"))
    parser.add_argument("--name", default="movies-small")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nightloom-bench-") as scratch:
        made = made_of(given.root, given.name, Path(scratch))
        engine, histories = made.engine, made.histories
        learned = list(long_runs(engine, histories.take(slice(0, FITTED)), FIT_SAMPLES, seed=0))
        estimator = fit(learned)
        timed = costs(made, estimator)
        true = truth(made, estimator)
        tested = list(long_runs(engine, histories.take(slice(FITTED, FITTED + TESTED)), ASKED, seed=1))
        lines = accuracy(made, learned, tested, estimator)
    weights, noise = estimator.weights, quality(tested, estimator)["target_error"]
    text = "\n".join(
        [
            "# Reasons beside long runs",
            "",
            f"{given.name}: the estimator is fitted to {FITTED} users ({FIT_SAMPLES} evaluations each) and tested on {len(tested)} others,",
            f"against permutations with at least {ASKED:,} evaluations, whose own mean standard error is {noise:.0%} of the values' size.",
            f"Weights: leave-one-out {weights[0]:.2f}, halves {weights[1]:.2f}, alone {weights[2]:.2f}.",
            "",
            "| estimate | evaluations for 50 events | relative RMSE | top-1 | top-3 overlap |",
            "|---|---|---|---|---|",
            *lines,
            "",
            "Relative RMSE: root mean square error over the root mean square of the values, a mean over recommendations.",
            "Top-1: how often the event that counts most is the same.",
            "",
            "| what was asked | found |",
            "|---|---|",
            *(f"| {name} | {found} |" for name, found in (*timed, *true)),
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), load average {os.getloadavg()[0]:.1f}. Command:",
            "",
            f"    python -m benchmarks.explain {shlex.join(sys.argv[1:] if arguments is None else arguments)}".rstrip(),
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def accuracy(made: Made, learned: Sequence[LongRun], tested: Sequence[LongRun], estimator: Estimator) -> list[str]:
    """Rows of the table: each way to estimate, on the same users."""
    both = ridge(learned)
    ways: dict[str, tuple[str, Callable[[LongRun], np.ndarray]]] = {
        "leave-one-out": ("51", lambda run: run.found.left_out),
        "alone": ("51", lambda run: run.found.alone),
        "leave-one-out and alone, ridge": ("102", lambda run: both[0] * run.found.left_out + both[1] * run.found.alone),
        "three sizes, Simpson's rule (no fit)": ("204", lambda run: run.found.values(Estimator())),
        "**three sizes, fitted (the service)**": ("204", lambda run: run.found.values(estimator)),
    }
    lines = []
    sampled = {id(run): values for run, values in zip(tested, permutations(made), strict=True)}
    ways["permutations"] = ("200", lambda run: sampled[id(run)])
    for name, (cost, way) in ways.items():
        apart, first, three = [], [], []
        for run in tested:
            values = way(run)
            size = np.sqrt(np.square(run.values).mean(0))
            apart.append(np.sqrt(np.square(values - run.values).mean(0)) / size)
            first.append(values.argmax(0) == run.values.argmax(0))
            best = (np.argsort(-one, axis=0)[:3] for one in (values, run.values))
            three.append(
                [len(set(mine) & set(theirs)) / min(3, len(values)) for mine, theirs in zip(*(one.T for one in best), strict=True)]
            )
        figures = [float(np.concatenate(one).mean()) for one in (apart, first, three)]
        lines.append(f"| {name} | {cost} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    return lines


def ridge(runs: Sequence[LongRun]) -> np.ndarray:
    """Weights of leave-one-out and alone, as `nightloom.explain.fit.fit` finds those of three."""
    products, wanted = np.zeros((2, 2)), np.zeros(2)
    for run in runs:
        size = np.sqrt(np.square(run.values).mean(0))
        parts = (np.stack([run.found.left_out, run.found.alone]) / size).reshape(2, -1)
        products += parts @ parts.T / parts.shape[1]
        wanted += parts @ (run.values / size).ravel() / parts.shape[1]
    return np.linalg.solve(products + RIDGE * np.diag(np.diag(products)), wanted)


def permutations(made: Made) -> list[np.ndarray]:
    """Values by permutations with 200 evaluations, of the same items of the tested users."""
    runs = long_runs(made.engine, made.histories.take(slice(FITTED, FITTED + TESTED)), 200, seed=2)
    return [run.values for run in runs]


def costs(made: Made, estimator: Estimator) -> list[tuple[str, str]]:
    """CPU of an answer's reasons, and how far the worth is from that of the bundle's scores."""
    spent, told, apart, evaluations = [], [], [], 0
    rows = np.flatnonzero(made.histories.lengths >= PLAYERS)[:TIMED]
    for row in rows.tolist():
        history = made.histories.take(slice(row, row + 1))
        history = subsets(history, np.arange(len(history.items))[None] >= len(history.items) - PLAYERS)
        scores = made.bundle.recommender.scores(history)[0]
        wanted = log_softmax(scores[None], np.arange(len(scores)))[0]
        scores[history.items] = -np.inf
        items = np.argsort(-scores)[:LONG]
        began = time.process_time()
        game = made.engine.coalitions_of(history)
        _, found = history_contributions(game, items, history.items)
        found.values(estimator)
        found.errors(estimator)
        spent.append(time.process_time() - began)
        evaluations = game.evaluations
        apart.append(np.abs(found.all - wanted[items]).max())
        began = time.process_time()
        reasons(made.engine.coalitions_of(history), items, estimator, history.items)
        told.append(time.process_time() - began)
    milliseconds = [
        f"{1000 * np.median(one):.1f} ms median, {1000 * np.percentile(one, 90):.1f} ms 90th percentile" for one in (spent, told)
    ]
    return [
        (f"values of {LONG} items, {PLAYERS} events, {evaluations} evaluations together, CPU", milliseconds[0]),
        ("the same with errors, which events decide and what would be without them, CPU", milliseconds[1]),
        ("worth beside that of the bundle's scores, largest difference", f"{max(apart):.1e}"),
    ]


def truth(made: Made, estimator: Estimator) -> list[tuple[str, str]]:
    """Whether named events lower the item, and counterfactuals hold, by the bundle's own scores."""
    names = wrong = told = false = asked = alone = named = 0
    for row in range(FITTED, len(made.histories)):
        if names >= CHECKED:
            break
        history = made.histories.take(slice(row, row + 1))
        game = made.engine.coalitions_of(history)
        scores = game.scores(np.ones((1, game.events), bool))[0].copy()
        scores[history.items] = -np.inf
        items = np.argsort(-scores)[:5]
        found = reasons(game, items, estimator, history.items)
        groups = [[event] for one in found for event in one.named] + [list(one.without) for one in found]
        keep = np.ones((1 + len(groups), game.events), dtype=bool)
        for place, events in enumerate(groups, start=1):
            keep[place, events] = False
        theirs = made.bundle.recommender.scores(subsets(history, keep))
        worth, place = log_softmax(theirs, items), 1
        for at, one in enumerate(found):
            asked, named = asked + 1, named + bool(one.named)
            for _ in one.named:
                names, wrong = names + 1, wrong + bool(worth[place, at] >= worth[0, at])
                place += 1
        for at, one in enumerate(found):
            if one.without:
                told, alone = told + 1, alone + (len(one.without) == 1)
                false += bool(game.ranks(theirs[place][None], items[at : at + 1], history.items)[0, 0] <= one.top)
            place += 1
    return [
        ("items with a named event", f"{named / asked:.0%} of {asked}"),
        ("named events without which the item does not fall", f"{wrong} of {names:,}"),
        (
            "items for which it is told without which events they would not be in the top 5",
            f"{told / asked:.0%}, by one event {alone / asked:.0%}",
        ),
        ("of these untrue by the bundle's ranks", f"{false} of {told}"),
    ]


if __name__ == "__main__":
    sys.exit(main())
