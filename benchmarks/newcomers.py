"""What users without a history are shown: one list for all, draws at several temperatures, and the trend of the last days.

    make nightly                                   # trains the model
    python -m benchmarks.newcomers [--root mlruns] [--name movies-small ...] [--table FILE]

Test queries without a history, of the last night of a name. Draws are those of the service (`nightloom.core.exploration`). The trend is the
logarithm of 1 + positive events in the last days before the test, standardised, and added to the model's scores.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nightloom.core.ranking import blocks, held_out_mask, ndcg_of_scores
from nightloom.core.sequences import Histories, Queries, Sequences
from nightloom.core.streaming import queries_of
from nightloom.evaluation.newcomers import measure_newcomers
from nightloom.evaluation.statistics import paired
from nightloom.models.scorers.popularity_penalty import PopularityPenalty
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.runs.stages import Manifest

TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.4)
DAYS, TRENDS = (1, 7, 30), (0.2, 0.5)
"""Windows of the trend, and its weights."""
DAY = 86_400
SAID: dict[str, Any] = {"confidence": 0.95, "resamples": 1000}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("mlruns"))
    parser.add_argument("--name", action="append", help="of a night; may be given several times")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args(arguments)
    lines = [line for name in given.name or ["movies-small"] for line in _of_night(given.root, name)]
    text = "\n".join(
        [
            "# Newcomers",
            "",
            "Test queries without a history. Items: different ones in the lists of ten. Shared: items that two lists have in common.",
            "Intervals: 95 %, paired, users drawn. The trend stands as it was when the test began.",
            "",
            *lines,
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}). Command:",
            "",
            f"    python -m benchmarks.newcomers {shlex.join(sys.argv[1:] if arguments is None else arguments)}".rstrip(),
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def _of_night(root: Path, name: str) -> Iterator[str]:
    """The lines of one night."""
    manifests = root / "nights" / name / "latest" / "manifests"
    tuned, prepared = (Manifest.load(manifests / f"{stage}.json").path for stage in ("fine_tune", "prepare"))
    protocol = next(path.parent.name for path in sorted(tuned.glob("*/bundle")))
    sequences, model = Sequences.load(prepared / f"sequences_{protocol}.npz"), Bundle.load(tuned / protocol / "bundle").recommender
    queries = queries_of(protocol, sequences, "test", exclude_seen=True)
    ids = pd.read_parquet(prepared / "users.parquet", columns=["user_id"])["user_id"].to_numpy(dtype=object)[queries.users]
    plain = measure_newcomers(model, queries, ids, 0.0, **SAID)
    yield from (f"## {name}", "")
    if not plain:
        yield from ("Nobody comes without a history.", "")
        return
    yield from (
        f"{plain['queries']:,} queries of {plain['users']:,} users.",
        "",
        "| lists | NDCG@10 | difference | items | shared |",
        "|---|---|---|---|---|",
        f"| one for all | {plain['off']['ndcg_at_10']:.4f} | | {plain['off']['items']:,} | {_shared(plain['off'])} |",
    )
    for temperature in TEMPERATURES:
        found = measure_newcomers(model, queries, ids, temperature, **SAID)
        apart = f"{found['difference']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
        on = found["on"]
        yield f"| drawn at {temperature:g} | {on['ndcg_at_10']:.4f} | {apart} | {on['items']:,} | {_shared(on)} |"
    known = sequences.train(with_validation=True)
    for days in DAYS if sequences.has_time else ():
        for weight in TRENDS:
            yield _with_trend(model, known, queries, ids, days, weight)
    yield ""


def _with_trend(model: SequentialRecommender, known: Histories, queries: Queries, ids: np.ndarray, days: int, weight: float) -> str:
    """The row of the model with a trend: a penalty turned around is added to the scores."""
    recent = known.positive & (known.times > known.times.max() - days * DAY)
    trend = PopularityPenalty.of(np.bincount(known.items[recent], minlength=model.n_items), -weight, model.fused_unit)
    other = copy(model)
    own = model.penalty
    other.penalty = trend if own is None else PopularityPenalty(weight, own.values + trend.values, own.unseen + trend.unseen)
    found = paired({"x": _ndcg(other, queries)}, {"x": _ndcg(model, queries)}, **SAID)["x"]
    shown = measure_newcomers(other, queries, ids, 0.0, **SAID)["off"]
    apart = f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    label = f"{weight:g} of the trend of {days} day{'s' if days > 1 else ''} added"
    return f"| {label} | {shown['ndcg_at_10']:.4f} | {apart} | {shown['items']:,} | {_shared(shown)} |"


def _ndcg(model: SequentialRecommender, queries: Queries) -> np.ndarray:
    """NDCG@10 of each query without a history; a user has one such query at most, but for events of one second."""
    asked = queries.take(np.flatnonzero(queries.histories.lengths == 0))
    parts = [
        ndcg_of_scores(model.scores(part.histories.packed()), held_out_mask(part, model.n_items), np.diff(part.target_offsets))
        for part in blocks(asked, model.n_items)
    ]
    sums = np.bincount(np.unique(asked.users, return_inverse=True)[1], np.concatenate(parts))
    return np.asarray(sums * len(sums) / len(asked))


def _shared(found: dict[str, Any]) -> str:
    return "" if found["shared"] is None else f"{found['shared']:.1f}"


if __name__ == "__main__":
    sys.exit(main())
