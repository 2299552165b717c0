"""Do the reasons hold? Events are removed, or kept alone, in the order that each method gives, and the recommendation is made anew.

    make nightly                                   # trains the model
    python -m benchmarks.fidelity [--root mlruns] [--name movies-small] [--users 300] [--table FILE]

The first recommendation of each user, the latest 50 events. Definitions are those of `nightloom.explain.fidelity`: supporting events alone,
ratios of softmax probabilities, items of the original history out of every ranking. Differences are paired, by user, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.explain import FITTED, Made, made_of
from benchmarks.other_reasons import (
    CLUSTER_SAMPLES,
    SPIN_BASELINES,
    SPIN_STEPS,
    STEPS,
    Inside,
    chosen,
    clustered,
    oracle,
    paths,
)
from nightloom.explain.explain import FIT_SAMPLES
from nightloom.explain.fidelity import BUDGETS, measures
from nightloom.explain.fit import fit, long_runs
from nightloom.explain.shapley import shapley_values
from nightloom.serving.reasons.attribution import PLAYERS, Estimator, contributions
from nightloom.serving.reasons.coalitions import Coalitions, subsets
from nightloom.serving.reasons.decisive import Decisive, decisive

LONG, RESAMPLES = 2_000, 2_000
"""Evaluations of a long run; bootstrap resamples."""
SERVICE, RIVAL = "**the service's order**", "leave-one-out (50)"
BY_VALUE, SEARCHED = "the service's values alone (204)", "leave-one-out and the service's search"
JUDGED = (1 + SPIN_BASELINES) * len(BUDGETS)
METRICS = ("pos_at_5", "cdcg", "del", "ins")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("mlruns"))
    parser.add_argument("--name", default="movies-small")
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--long", type=int, default=LONG, help="evaluations of the Shapley values by permutations; 0: leave them out")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nightloom-bench-") as scratch:
        made = made_of(given.root, given.name, Path(scratch))
        estimator = fit(long_runs(made.engine, made.histories.take(slice(0, FITTED)), FIT_SAMPLES, seed=0))
        rows = [row_of(made, estimator, at, given.long) for at in range(min(given.users, len(made.histories) - FITTED))]
    names = list(rows[0])
    found = {name: {metric: np.array([row[name][metric] for row in rows]) for metric in rows[0][name]} for name in names}
    spent = {name: round(float(found[name].pop("evaluations").mean())) for name in (SERVICE, SEARCHED)}
    head = ["method (evaluations)", *(name for metric in METRICS for name in (metric.upper(), f"{metric.upper()} area"))]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in names:
        figures = [found[name][f"{metric}{part}"].mean() for metric in METRICS for part in ("", "_area")]
        lines.append(f"| {name}{f' ({spent[name]})' if name in spent else ''} | " + " | ".join(f"{one:.3f}" for one in figures) + " |")
    text = "\n".join(
        [
            "# Fidelity of reasons",
            "",
            f"{given.name}, the first recommendation of {len(rows)} test users, their latest {PLAYERS} events; means over Ke = "
            f"{BUDGETS[0]} to {BUDGETS[-1]},",
            "and areas: means over steps of 10 % of the history, none and all included.",
            "Lower is better but for INS. Greedy deletion looks for what harms most, step by step: a bound for POS, CDCG and DEL.",
            "",
            *lines,
            "",
            "Attention and paths are the network's own; scorers, which add to its scores, they do not see. The service's order: the",
            "first event is the one without which the item falls furthest, each further one that without which it falls furthest",
            "once those before it are gone; leave-one-out is given the same search for comparison. SPIN-type: of eleven paths, one",
            "from nothing and ten from other people's events, that with the lowest CDCG for the user; a gradient is a pass forward",
            f"and one back, and {JUDGED} evaluations tell which path is best. Oracle: the best of the eleven for each user and each",
            "figure by itself, as published figures of SPINRec are; nothing that could be shown.",
            "",
            f"{SERVICE.strip('*')} less others, means over Ke, paired, 95 %:",
            "",
            f"| less | {' | '.join(metric.upper() for metric in METRICS)} |",
            "|" + "---|" * (1 + len(METRICS)),
            *(f"| {other} | {' | '.join(difference(found, other, one) for one in METRICS)} |" for other in names if other != SERVICE),
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), load average {os.getloadavg()[0]:.1f}. Command:",
            "",
            f"    python -m benchmarks.fidelity {shlex.join(sys.argv[1:] if arguments is None else arguments)}".rstrip(),
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def row_of(made: Made, estimator: Estimator, number: int, long: int) -> dict[str, dict[str, float]]:
    """Measures of all methods for one user; `long`: evaluations of the Shapley values by permutations."""
    engine, random = made.engine, np.random.default_rng(number)
    whole = made.histories.take(slice(FITTED + number, FITTED + number + 1))
    one = subsets(whole, np.arange(len(whole.items))[None] >= len(whole.items) - PLAYERS)
    game = engine.coalitions_of(one)
    scores = game.scores(np.ones((1, game.events), bool))[0].copy()
    scores[whole.items] = -np.inf
    item, events = int(np.argmax(scores)), game.events
    items, hidden = np.array([item]), whole.items
    asked = game, np.arange(events), items, hidden
    found = contributions(*asked)
    values = found.values(estimator)
    (by_service,), (by_leaving_out,) = decisive(*asked, found, values), decisive(*asked, found, found.left_out)
    vectors = engine.catalogue.vectors
    lengths = np.linalg.norm(vectors, axis=1)
    attention = Inside(made.bundle.recommender, one).attention()
    cosine = vectors[one.items] @ vectors[item] / (lengths[one.items] * lengths[item])
    orders = {
        "random (0)": random.permutation(events).tolist(),
        "recency (0)": list(range(events))[::-1],
        "cosine of item vectors (0)": np.argsort(-cosine, kind="stable").tolist(),
        "single event alone (50)": supporting(found.alone[:, 0]),
        RIVAL: supporting(found.left_out[:, 0]),
        SERVICE: by_service.order,
        BY_VALUE: supporting(values[:, 0]),
        SEARCHED: by_leaving_out.order,
        "greedy deletion (240)": greedy(game, item),
        "attention of the last layer (1)": supporting(attention[-1]),
        "attention of all layers (1)": supporting(attention.mean(0)),
        f"clustered SHAP ({CLUSTER_SAMPLES})": supporting(clustered(game, item, vectors[one.items], number)),
    }
    if long:
        sampled = shapley_values(lambda keep: game.log_probabilities(keep, items), events, long, seed=number)[0].values
        orders[f"Shapley values by permutations ({long:,})"] = supporting(sampled)
    along = paths(made.bundle.recommender, one, item, made.histories.items, number)
    candidates = {f"path {place}": supporting(values) for place, values in enumerate(along)}
    measured = measures(game, item, orders | candidates, hidden)
    measured[SERVICE]["evaluations"] = 4 * events + 4 + tried_by(by_service)
    measured[SEARCHED]["evaluations"] = events + 1 + tried_by(by_leaving_out)
    tried = {name: measured.pop(name) for name in candidates}
    measured[f"path integration ({STEPS} gradients)"] = tried["path 0"]
    spin = f"SPIN-type, one criterion ({STEPS + SPIN_BASELINES * SPIN_STEPS} gradients and {JUDGED})"
    measured[spin] = tried[chosen(tried)]
    measured["SPIN-type, oracle of 11"] = oracle(tried)
    return measured


def tried_by(decided: Decisive) -> int:
    """Coalitions that the search tried: those without one event are those of leave-one-out."""
    return sum(len(players) > 1 for players in decided.ranks)


def supporting(values: np.ndarray) -> list[int]:
    """Events with values above zero, the largest first."""
    order = np.argsort(-values, kind="stable")
    return order[values[order] > 0].tolist()


def greedy(game: Coalitions, item: int) -> list[int]:
    """Five events, each the one without which the item falls most once those before it are gone; the others follow by leave-one-out."""
    gone: list[int] = []
    rest = list(range(game.events))
    while rest and len(gone) < max(BUDGETS):
        keep = np.ones((len(rest), game.events), dtype=bool)
        keep[:, gone] = False
        keep[np.arange(len(rest)), rest] = False
        worth = game.log_probabilities(keep, np.array([item]))[:, 0]
        gone.append(rest.pop(int(np.argmin(worth))))
        last = np.delete(worth, np.argmin(worth))
    return gone + [rest[at] for at in np.argsort(last, kind="stable")] if rest else gone


def difference(found: dict[str, dict[str, np.ndarray]], other: str, metric: str) -> str:
    """The paired difference of the service's estimate and another method, with its interval."""
    apart = found[SERVICE][metric] - found[other][metric]
    drawn = np.random.default_rng(0).integers(0, len(apart), (RESAMPLES, len(apart)))
    low, high = np.percentile(apart[drawn].mean(1), (2.5, 97.5))
    return f"{apart.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    sys.exit(main())
