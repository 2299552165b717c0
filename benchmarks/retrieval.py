"""Candidates of a large catalogue beside a scan of all of it: how many of the best are found, and what one answer costs.

    python -m benchmarks.retrieval [--items 100000 1000000] [--table FILE]

Catalogues are made up. In one kind vectors lie together, as learned ones do; in the other they are drawn apart, without a structure that
an index could use. All answers fuse network, graph, popularity and item factors; the 100 best, one thread, CPU milliseconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving_engine import table
from nightloom.core.int8_rows import rounded_rows
from nightloom.core.moments import VectorMoments
from nightloom.core.sequences import Histories
from nightloom.models.scorers.als import ALS
from nightloom.serving.items.catalogue import LiveCatalogue
from nightloom.serving.model.members import Factors, Graph, Member, Popularity
from nightloom.serving.model.penalty import Penalty
from nightloom.serving.model.ranker import Ranker
from nightloom.serving.model.retrieval import FEW, TRIED, Retrieval
from nightloom.serving.model.rows import Int8Rows

WIDTH, FACTORS, DEGREE, GROUPS, EVENTS, ASKED = 64, 32, 20, 1_000, 30, 40
PENALTY = 0.3
WEIGHTS = {"graph": 0.1, "popularity": 0.1, "als": 0.15}
FILTERS = (1.0, 0.1, 0.01, 0.001)
HEAD = ("items", "vectors", "filter keeps", "index scanned", "100 best", "first 20 the same", "all, CPU ms", "candidates, CPU ms")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    rows, notes = [], []
    for items in given.items:
        for structured, strength in ((True, 0.0), (True, PENALTY), (False, 0.0)):
            found, note = compared(items, structured=structured, strength=strength)
            rows += found
            notes.append(note)
    text = "\n".join(
        [
            "# Candidates of a large catalogue",
            "",
            f"Made-up catalogues, d {WIDTH} in int8, {FACTORS} factors, {DEGREE} edges an item; {ASKED} histories of {EVENTS}.",
            "Vectors lie together around points, as learned ones do, or are drawn apart. Found: of the 100 best of a scan.",
            f"With a penalty {PENALTY:g} is taken off the score for each standard deviation of log popularity.",
            "",
            *table(HEAD, rows),
            "",
            *(f"- {note}" for note in notes),
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), load average {os.getloadavg()[0]:.1f}. Command:",
            "",
            f"    python -m benchmarks.retrieval {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def compared(n: int, *, structured: bool, strength: float) -> tuple[list[tuple[str, ...]], str]:
    """Rows of the table for one catalogue and one popularity penalty, and what its index costs."""
    random = np.random.default_rng(0)
    group = random.integers(0, GROUPS, n)
    vectors, factors = (drawn(random, group, width, structured=structured) for width in (WIDTH, FACTORS))
    moments = VectorMoments(vectors)
    catalogue = LiveCatalogue([str(item) for item in range(n)], Int8Rows(*rounded_rows(vectors)), moments.mean, moments.covariance)
    members = made_up(random, factors)
    logs = members["popularity"].values if strength else np.zeros(n)
    penalty = Penalty((strength * logs / logs.std()).astype(np.float32), 0.0) if strength else None
    exact, ranker = (Ranker(catalogue, members, WEIGHTS, WEIGHTS, None, penalty) for _ in range(2))
    people = [some_user(random, group, vectors) for _ in range(TRIED + ASKED)]
    began = time.process_time()
    ranker.retrieval = Retrieval(catalogue, members, WEIGHTS, people[:TRIED], penalty)
    took = time.process_time() - began
    asked = people[TRIED:]
    kind, rows = ("together" if structured else "apart") + (", penalty" if strength else ""), []
    for share in FILTERS:
        allowed = None if share == 1 else random.random(n) < share
        wanted, whole = answers(exact, asked, allowed)
        found, part = answers(ranker, asked, allowed)
        best = np.mean([len(np.intersect1d(one, other)) / max(len(one), 1) for one, other in zip(wanted, found, strict=True)])
        same = sum(one[:20].tolist() == other[:20].tolist() for one, other in zip(wanted, found, strict=True))
        kept = 1 if allowed is None else allowed.mean()
        scanned = f"{ranker.retrieval.share:.0%}" if kept > FEW else "not asked"
        rows.append((f"{n:,}", kind, f"{share:.1%}", scanned, f"{best:.2%}", f"{same} of {len(asked)}", f"{whole:.2f}", f"{part:.2f}"))
    size = ranker.retrieval.cells.nbytes / 1e6
    return rows, f"{n:,} items, {kind}: the index is made in {took:.1f} s of CPU and takes {size:.0f} MB."


def drawn(random: np.random.Generator, group: NDArray[np.int64], width: int, *, structured: bool) -> NDArray[np.float32]:
    """A vector for each item: around the point of its group, or anywhere."""
    apart = random.standard_normal((len(group), width), dtype=np.float32)
    return random.standard_normal((GROUPS, width), dtype=np.float32)[group] + np.float32(0.5) * apart if structured else apart


def some_user(random: np.random.Generator, group: NDArray[np.int64], vectors: NDArray[np.float32]) -> tuple[Histories, NDArray[np.float32]]:
    """A history, most of it of three groups of items, and a user vector near to that of its items."""
    liked = np.flatnonzero(np.isin(group, random.integers(0, GROUPS, 3)))
    items = np.concatenate([random.choice(liked, EVENTS - 5), random.integers(0, len(group), 5)])
    return Histories.of_items([items.tolist()]), vectors[items].mean(0) + np.float32(0.2) * random.standard_normal(WIDTH, dtype=np.float32)


def made_up(random: np.random.Generator, factors: NDArray[np.float32]) -> dict[str, Member]:
    """Scorers of a made-up catalogue with a long tail."""
    n = len(factors)
    counts = np.minimum(random.zipf(1.5, n), 100_000)
    edges = {
        "offsets": np.arange(n + 1, dtype=np.int64) * DEGREE,
        "targets": random.integers(0, n, n * DEGREE).astype(np.int32),
        "weights": random.random(n * DEGREE, dtype=np.float32),
        "popularity": counts,
        "seen": counts,
    }
    als = ALS(factors=FACTORS)
    als._keep(factors, counts)
    return {
        "graph": Graph(edges, {"reach": 3, "decay": 0.7, "backward": 0.5, "recency": 0.7, "memory": 32}),
        "popularity": Popularity(counts, np.zeros(n, np.float32)),
        "als": Factors({"vectors": als.vectors, "gram": als.gram}, {name: getattr(als, name) for name in ALS.settings}),
    }


def answers(
    ranker: Ranker, asked: list[tuple[Histories, NDArray[np.float32]]], allowed: NDArray[np.bool_] | None
) -> tuple[list[NDArray[np.int64]], float]:
    """The 100 best for each query, and the median of CPU milliseconds."""
    one: Callable[[int], NDArray[np.int64]] = lambda place: ranker.rank(*asked[place], 100, True, allowed, None)[0]  # noqa: E731
    one(0)
    found, times = [], []
    for place in range(len(asked)):
        began = time.thread_time()
        found.append(one(place))
        times.append(time.thread_time() - began)
    return found, float(np.median(times)) * 1000


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description="Candidates of a large catalogue beside a scan.")
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000], help="sizes of made-up catalogues")
    parser.add_argument("--table", type=Path, help="also write the page to this Markdown file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
