"""Fused scores of candidates against those of the full table: NDCG@10 of both paths, and what a query costs.

    python -m benchmarks.quality --preset office --seeds 7 --minutes 3      # trains the model, once a preset
    python -m benchmarks.candidates --presets movies-small office industrial --seed 7 --minutes 3 [--table FILE]
    python -m benchmarks.candidates --items 100000                          # what it costs on a large, made-up catalogue

Three paths rank the test part. Full: every member's table, standardised. All as candidates: the whole catalogue through
`candidate_scores`, so that nothing but the arithmetic differs. Retrieved: the union of each member's best items alone.
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

from benchmarks import quality
from nightloom.core.moments import VectorMoments
from nightloom.core.ranking import blocks, ndcg_of_scores
from nightloom.core.recommender import mask_seen
from nightloom.core.sequences import Histories, Queries, Sequences
from nightloom.models.scorers.graph import TransitionGraph
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.scorers.score_fusion import NETWORK, fuse, standard
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle

RETRIEVED = 200
"""Best items of each member that are candidates."""
TIMED, CANDIDATES = 200, 500
"""Queries that are timed, one at a time, and candidates of each."""

MADE_UP, EVENTS, TOPIC = 100_000, 20, 2_000
"""Made-up users, events of each, and items among which a user chooses."""

QUALITY = ("set", "items", "queries", "fusion weights", "full", "all as candidates", "retrieved", "candidates a query", "score difference")
COST = ("set", "items", "events a query", "full, CPU ms", "500 candidates, CPU ms", "user vector (in both), CPU ms")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    qualities, costs = [QUALITY, ("---",) * len(QUALITY)], [COST, ("---",) * len(COST)]
    for preset in given.presets:
        recommender, queries, exclude_seen = load(preset, given)
        reranker, recommender.reranker = recommender.reranker, None
        qualities.append(measure_quality(preset, recommender, queries, exclude_seen=exclude_seen))
        if reranker is not None:
            recommender.reranker = reranker
            qualities.append(measure_quality(f"{preset}, re-ranked", recommender, queries, exclude_seen=exclude_seen))
            recommender.reranker = None
        costs.append(measure_cost(preset, recommender, queries.histories))
        print(qualities[-1], costs[-1], flush=True)
    for n_items in given.items:
        costs.append(measure_large(n_items))
        print(costs[-1], flush=True)
    if given.table:
        said = shlex.join(sys.argv[1:] if arguments is None else arguments)
        given.table.write_text(markdown(qualities, costs, said), encoding="utf-8")
    return 0


def load(preset: str, given: argparse.Namespace) -> tuple[SequentialRecommender, Queries, bool]:
    """The model that `benchmarks.quality` has trained, and the queries of the test part."""
    asked = ["--preset", preset, "--seeds", str(given.seed), *(["--minutes", str(given.minutes)] if given.minutes else [])]
    read = quality.parse(asked)
    config = quality.config_of(read, "full", given.seed)
    home = Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")) / "bench" / "quality" / config.name
    folder = quality.run_folder(home, read.protocol, "full", given.seed, config) / "bundle"
    if not folder.exists():
        raise SystemExit(f"{folder} is missing: run `python -m benchmarks.quality {shlex.join(asked)}` first")
    exclude_seen = config.evaluation.exclude_seen
    sequences = Sequences.load(home / "prepared" / f"sequences_{read.protocol}.npz")
    return Bundle.load(folder).recommender, sequences.queries("test", exclude_seen=exclude_seen), exclude_seen


def measure_quality(name: str, recommender: SequentialRecommender, queries: Queries, *, exclude_seen: bool) -> tuple[str, ...]:
    """NDCG@10 of the three paths, and the largest difference of a fused score."""
    gains: list[tuple[float, float, float]] = []
    widths, furthest = [], 0.0
    for part in blocks(queries, recommender.n_items * 64):
        histories = part.histories
        everything = np.tile(np.arange(recommender.n_items), (len(part), 1))
        network, scorers = recommender.network_scores(histories), recommender.scorer_scores(histories)
        full, every = recommender.finish(network, scorers, histories), recommender.candidate_scores(histories, everything)
        furthest = max(furthest, float(np.abs(full - every).max()))
        retrieved = np.full_like(full, -np.inf)
        for row in range(len(part)):
            candidates = np.unique([np.argpartition(-table[row], RETRIEVED)[:RETRIEVED] for table in (network, *scorers.values())])
            retrieved[row, candidates] = recommender.candidate_scores(histories.take(slice(row, row + 1)), candidates[None])[0]
            widths.append(len(candidates))
        many = np.diff(part.target_offsets)
        held = np.zeros(full.shape, dtype=bool)
        held[np.repeat(np.arange(len(part)), many), part.targets] = True
        for scores in (full, every, retrieved):
            if exclude_seen:
                mask_seen(scores, histories)
        gains += zip(*(ndcg_of_scores(scores, held, many).tolist() for scores in (full, every, retrieved)), strict=True)
    means = [f"{value:.5f}" for value in np.mean(gains, 0)]
    weights = ", ".join(f"{one} {weight:.2f}" for one, weight in recommender.weights.items())
    return (
        name,
        f"{recommender.n_items:,}",
        f"{len(queries):,}",
        weights or "network alone",
        *means,
        f"{np.mean(widths):.0f}",
        f"{furthest:.1e}",
    )


def measure_cost(name: str, recommender: SequentialRecommender, histories: Histories) -> tuple[str, ...]:
    """CPU time of one query by both paths, each query for itself."""
    random = np.random.default_rng(0)
    rows = random.choice(len(histories), min(TIMED, len(histories)), replace=False)
    single = [histories.take(np.array([row])) for row in rows]
    candidates = [random.choice(recommender.n_items, CANDIDATES, replace=False)[None] for _ in rows]
    items = recommender.item_vectors()
    full = milliseconds(lambda at: recommender.scores(single[at]), len(rows))
    few = milliseconds(lambda at: recommender.candidate_scores(single[at], candidates[at]), len(rows))
    vector = milliseconds(lambda at: recommender.user_vectors(single[at], items), len(rows))
    return name, f"{recommender.n_items:,}", f"{histories.lengths[rows].mean():.0f}", full, few, vector


def measure_large(n_items: int) -> tuple[str, ...]:
    """The same for made-up histories over a large catalogue: random vectors, the transition graph and popularity."""
    random = np.random.default_rng(0)
    topics = random.integers(0, n_items // TOPIC, MADE_UP)  # each user stays within one, where some items are far more popular
    drawn = topics[:, None] * TOPIC + (TOPIC * random.random((MADE_UP, EVENTS)) ** 3).astype(int)
    train = Histories.of_items(drawn.tolist())
    scorers = {"graph": TransitionGraph().fit(train, n_items), "popularity": Popularity().fit(train, n_items)}
    weights = dict.fromkeys(scorers, 0.3)
    vectors = random.normal(size=(n_items, 64)).astype(np.float32)
    moments = VectorMoments(vectors)
    users = random.normal(size=(TIMED, 64)).astype(np.float32)
    single = [train.take(np.array([row])) for row in range(TIMED)]
    candidates = [random.choice(n_items, CANDIDATES, replace=False)[None] for _ in range(TIMED)]

    def full(at: int) -> None:
        tables = {NETWORK: users[at : at + 1] @ vectors.T} | {name: one.scores(single[at]) for name, one in scorers.items()}
        fuse({name: standard(table) for name, table in tables.items()}, weights)

    def few(at: int) -> None:
        network = (users[at : at + 1] @ vectors[candidates[at][0]].T, moments(users[at : at + 1]))
        found = {NETWORK: network} | {name: one.candidate_scores(single[at], candidates[at]) for name, one in scorers.items()}
        fuse({name: one.standardise(scores) for name, (scores, one) in found.items()}, weights)

    return "made up", f"{n_items:,}", str(EVENTS), milliseconds(full, TIMED), milliseconds(few, TIMED), "none"


def milliseconds(answer: Callable[[int], object], queries: int) -> str:
    """Mean CPU time of a query; the first answers are not counted."""
    for at in range(min(10, queries)):
        answer(at)
    start = time.process_time()
    for at in range(queries):
        answer(at)
    return f"{(time.process_time() - start) / queries * 1000:.2f}"


def markdown(qualities: list[tuple[str, ...]], costs: list[tuple[str, ...]], arguments: str) -> str:
    """Both tables as a page, with date, machine and command."""
    tables = ["\n".join(f"| {' | '.join(cells)} |" for cells in rows) for rows in (qualities, costs)]
    when = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), one thread, shared with other work"
    said = f"{when}. Command: `python -m benchmarks.candidates {arguments}`."
    kept = "NDCG@10 on the test part, leave-one-out, whole catalogue less seen items; before the re-ranker unless said."
    return "\n\n".join(["# Score fusion on candidates", kept, tables[0], "One query at a time, mean of 200.", tables[1], said]) + "\n"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candidates", description="Fused scores of candidates, and their cost.")
    parser.add_argument("--presets", nargs="*", default=[], help="presets whose model benchmarks.quality has trained")
    parser.add_argument("--items", type=int, nargs="*", default=[], help="sizes of made-up catalogues that are timed too")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--minutes", type=float, help="as it was given to benchmarks.quality")
    parser.add_argument("--table", type=Path, help="also write the tables to this Markdown file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
