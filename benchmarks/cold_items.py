"""How items that nobody has acted on are ranked: known ones whose events are taken away, a fifth of them at a time.

    python -m benchmarks.quality --preset office --protocol streaming --seeds 7
    python -m benchmarks.cold_items office [movies-small ...] [--table FILE]

Reads what `benchmarks.quality` has trained. Scorers are fitted without the events of the fifth, whose vectors are made without ids. Test
events on these items are asked about. The network stays as it is trained, so it has seen them, which helps all lines alike. Two lines are
of the service, which keeps a place for what came by day: the item asked about alone, or all of its fifth.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.serving_engine import table
from nightloom.core.ragged import offsets_of, owners
from nightloom.core.ranking import Ranked, ranks
from nightloom.core.sequences import Histories, Queries, Sequences
from nightloom.core.streaming import STREAMING, queries_of
from nightloom.models.scorers import newcomers
from nightloom.models.scorers.popularity import positive_counts
from nightloom.models.scorers.registry import fit_scorers
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.serving.items.fresh_items import FreshItems
from nightloom.serving.model.engine import LATEST
from nightloom.serving.new_place import LOOKED_AT, NEW_AT

Expected = Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.float64]]
HEAD = ("data", "what is expected", "queries", "NDCG", "difference", "standard error", "in the 20 best", "median place")
PARTS = 5
SERVED = "mean by distance, as it serves"
PLACES = ("the same, and its place kept by day", "the same, where the whole fifth came by day")


def nothing(cosines: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.float64]:  # noqa: ARG001  # stands in for another
    """No popularity and no factors."""
    return np.zeros(values.shape[1])


def fourth_power(cosines: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Weights of before: the fourth power of the cosine, by which a copy counts no more than a few texts that are near."""
    weights = np.square(cosines.astype(np.float64))
    found: NDArray[np.float64] = weights @ values / (weights.sum() + newcomers.NOTHING)
    return found


KERNELS: dict[str, Expected] = {
    "nothing": nothing,
    "mean by the fourth power of the cosine": fourth_power,
    SERVED: newcomers.expected,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="presets that benchmarks.quality was run with")
    parser.add_argument("--queries", type=int, default=400, help="most test events that are asked about, of each fifth")
    parser.add_argument("--table", type=Path, help="also write the page to this Markdown file")
    given = parser.parse_args(arguments)
    lines = table(HEAD, [row for name in given.names for row in of_preset(name, given.queries)])
    said = shlex.join(sys.argv[1:] if arguments is None else arguments)
    when = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}). Command:"
    text = "\n".join(["# Items without events", "", *lines, "", when, "", f"    python -m benchmarks.cold_items {said}", ""])
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def of_preset(name: str, most: int) -> list[tuple[str, ...]]:
    """The lines of one preset."""
    home = Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")) / "bench" / "quality" / name
    trained = sorted(home.glob(f"{STREAMING}/full-*/bundle"), key=lambda path: path.stat().st_mtime)
    if not trained:
        sys.exit(f"{home}: nothing was trained. Run benchmarks.quality --preset {name} --protocol {STREAMING} first.")
    model, sequences = Bundle.load(trained[-1]).recommender, Sequences.load(home / "prepared" / f"sequences_{STREAMING}.npz")
    if model.reranker is not None:
        sys.exit(f"{trained[-1]}: it has a re-ranker, whose counters know the items. Train with model.reranker=false.")
    queries, train = queries_of(STREAMING, sequences, "test", exclude_seen=True), sequences.train(with_validation=True)
    random = np.random.default_rng(0)
    known = (positive_counts(train, sequences.n_items) > 0) & model.content.has_text.numpy() & (model.content.id_rows.numpy() > 0)
    part = np.where(known, random.integers(0, PARTS, len(known)), -1)
    places: dict[str, list[NDArray[np.int64]]] = {kernel: [] for kernel in (*KERNELS, *PLACES)}
    for number in range(PARTS):
        asked = random.permutation(np.flatnonzero(part[queries.targets] == number))[:most]
        some = queries.only(np.isin(np.arange(len(queries.targets)), asked))[0]
        for kernel, found in ranked_without(model, train, some, part == number).items():
            places[kernel].append(found)
    gains = {kernel: 1 / np.log2(1 + np.concatenate(found)) for kernel, found in places.items()}
    rows, before = [], gains["mean by the fourth power of the cosine"]
    for kernel, gain in gains.items():
        apart, all_places = gain - before, np.concatenate(places[kernel])
        error = apart.std() / np.sqrt(len(apart))
        cells = f"{len(gain):,}", f"{gain.mean():.4f}", f"{apart.mean():+.4f}", f"{error:.4f}"
        rows.append((name, kernel, *cells, f"{100 * (all_places <= 20).mean():.1f} %", f"{np.median(all_places):.0f}"))
    return rows


def ranked_without(
    model: SequentialRecommender, train: Histories, queries: Queries, cold: NDArray[np.bool_]
) -> dict[str, NDArray[np.int64]]:
    """Places of held-out items whose events are taken away, by what is expected of them."""
    content = replace(model.content, id_rows=model.content.id_rows.masked_fill(torch.from_numpy(cold), 0))
    kept = ~cold[train.items]
    left = train.of_events(np.flatnonzero(kept), offsets_of(np.bincount(owners(train.offsets)[kept], minlength=len(train))))
    found = {}
    for kernel, function in KERNELS.items():
        now, newcomers.expected = newcomers.expected, function  # type: ignore[assignment]
        try:
            scorers = fit_scorers(list(model.weights), left, content, getattr(model.config, "min_support", 1))
        finally:
            newcomers.expected = now
        other = SequentialRecommender(
            model.config, model.shape, model.net, content, scorers, model.weights, newcomer_weights=model.newcomer_weights
        )
        ranked = ranks(other, queries, exclude_seen=True)
        found[kernel] = ranked.ranks
        if kernel == SERVED:
            known = (positive_counts(left, other.n_items) > 0) & content.has_text.numpy()
            found |= with_place(model, queries, ranked, cold, known)
    return found


def with_place(
    model: SequentialRecommender, queries: Queries, ranked: Ranked, cold: NDArray[np.bool_], known: NDArray[np.bool_]
) -> dict[str, NDArray[np.int64]]:
    """The same places where the service keeps one for a new item that is near by text."""
    text, has_text = model.content.text, model.content.has_text
    unit = TextNeighbours.space(text, has_text)(text, has_text).numpy()
    fresh, others = FreshItems(), np.flatnonzero(known)
    for item in np.flatnonzero(cold):
        near = np.square(np.maximum(unit[others] @ unit[item], 0))
        best = np.argsort(-near, kind="stable")
        fresh.put(int(item), others[best], near[best])
    alone, all_of_them = ranked.ranks.copy(), ranked.ranks.copy()
    for row in range(len(queries)):
        history = queries.histories.take(np.array([row])).packed().items.tolist()
        top = [int(item) for item in ranked.top[row] if item >= 0]
        near_ones = fresh.nearest([*history[-LATEST:], *top[: NEW_AT - 1 + LOOKED_AT]])
        chosen = next((item for item in near_ones if item not in history), None)
        taken = chosen is not None and chosen not in top[:NEW_AT]
        for at in range(ranked.offsets[row], ranked.offsets[row + 1]):
            target, rank = int(queries.targets[at]), int(ranked.ranks[at])
            if target in near_ones:
                alone[at] = min(rank, NEW_AT)
            if taken and rank >= NEW_AT:
                all_of_them[at] = NEW_AT if target == chosen else rank + 1
    return dict(zip(PLACES, (alone, all_of_them), strict=True))


if __name__ == "__main__":
    sys.exit(main())
