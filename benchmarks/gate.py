"""What the gate promises, simulated: python -m benchmarks.gate [--nights 2000] [--table FILE].

A user has one held-out item. The champion finds it among the first ten with probability `hit`, at a place that is Zipf distributed. An
equal challenger draws a share of the lists anew (retraining does that); a worse one loses a share of its hits besides. Every night has
other users. What is asked are the comparisons that `decide` rests on, and `decide` itself for the ninety nights.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.config import PromotionConfig
from nightloom.promotion.comparison import Pair, compare, guarded
from nightloom.promotion.gate import decide

PLACES = 10
FALSE, HARMLESS, SLICES, YEAR = "false promotion", "equal passes", "harmless veto", "ninety nights"


@dataclass(frozen=True)
class Case:
    """One cell of a table: users a night, hit rate, share of lists drawn anew, share of hits lost."""

    users: int
    hit: float
    redrawn: float
    lost: float = 0.0
    slices: int = 0


def lists(random: np.random.Generator, users: int, hit: float) -> NDArray[np.int64]:
    """Rank of each user's held-out item; beyond the tenth place anywhere among the next thousand."""
    weight = 1 / np.arange(1, PLACES + 1)
    ranks = random.choice(np.arange(1, PLACES + 1), users, p=weight / weight.sum())
    return np.where(random.random(users) < hit, ranks, random.integers(PLACES + 1, 1000, users))


def worse(random: np.random.Generator, champion: NDArray[np.int64], case: Case) -> NDArray[np.int64]:
    """The challenger's ranks."""
    anew = random.random(len(champion)) < case.redrawn
    ranks = np.where(anew, lists(random, len(champion), case.hit), champion)
    return np.where(random.random(len(champion)) < case.lost, 1000, ranks)


def rows(ranks: NDArray[np.int64]) -> pd.DataFrame:
    """As per_user.parquet has them."""
    users = [f"u{user}" for user in range(len(ranks))]
    return pd.DataFrame({"user_id": users, "item_id": "i", "rank": ranks})


def share(case: Case, nights: int, seed: int) -> float:
    """Share of nights that promote; with slices, that any of them stops."""
    random, config = np.random.default_rng(seed), PromotionConfig(resamples=200)
    counted = 0
    for night in range(nights):
        champion = lists(random, case.users, case.hit)
        challenger = worse(random, champion, case)
        if case.slices:  # of 50 to 300 users each
            drawn = [random.random(case.users) < size / case.users for size in random.integers(50, 301, case.slices)]
            pairs = {f"s{slot}": pair(challenger[inside], champion[inside]) for slot, inside in enumerate(drawn)}
            counted += any(not one.passed for one in guarded(pairs, config, night))
        else:
            counted += compare("champion", pair(challenger, champion), iter(()), config.margin, config, night).passed
    return counted / nights


def pair(challenger: NDArray[np.int64], champion: NDArray[np.int64]) -> Pair:
    """NDCG@10 of both, user by user."""
    mine, its = (np.where(ranks <= PLACES, 1 / np.log2(ranks + 1), 0.0) for ranks in (challenger, champion))
    return Pair(np.arange(len(mine)).astype(object), mine, its, bool((challenger == champion).all()))


def left(users: int, lost: float, nights: int, anchored: bool, seed: int) -> tuple[float, int]:
    """What ninety nights leave of the first champion's NDCG, and how many of them promoted.

    Each night's challenger keeps a share 1 - `lost` of the champion's hits; all models are ranked for the same users.
    """
    random, config = np.random.default_rng(seed), PromotionConfig(resamples=400)
    quality, anchor, promoted = 1.0, 1.0, 0
    for night in range(nights):
        best = lists(random, users, 0.25)
        draw = random.random(users)  # whoever is lost at one quality is lost at every lower one

        def of(kept: float, best: NDArray[np.int64] = best, draw: NDArray[np.float64] = draw) -> pd.DataFrame:
            return rows(np.where(draw < kept, best, 1000))

        standing = of(anchor) if anchored and anchor != quality else None
        found = decide(of(quality * (1 - lost)), of(quality), {}, config, seed=night, anchor=standing)
        if found.decision == "promote":
            quality, promoted = quality * (1 - lost), promoted + 1
            anchor = quality if found.moves_anchor else anchor
    return quality, promoted


def cells(quick: bool) -> Iterator[tuple[str, Case]]:
    """All cells of the tables of single nights."""
    for users in (100, 300, 1000) if quick else (100, 300, 1000, 3000, 10000):
        for redrawn in (0.03, 0.1, 0.3):
            yield FALSE, Case(users, 0.25, redrawn, lost=0.02)
            yield HARMLESS, Case(users, 0.25, redrawn)
    for redrawn in (0.1, 0.3):
        yield SLICES, Case(2000, 0.25, redrawn, slices=20)


def main() -> int:
    """Simulate, and print or write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description="What the gate promises, simulated.")
    parser.add_argument("--nights", type=int, default=2000, help="simulated nights a cell")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="up to 1,000 users a night")
    parser.add_argument("--table", type=Path, help="write the tables to this file")
    given = parser.parse_args()
    with ProcessPoolExecutor(given.workers) as pool:
        found = {(kind, case): pool.submit(share, case, given.nights, 7) for kind, case in cells(given.quick)}
        users = (4000,) if given.quick else (4000, 30000)
        slides = {(many, anchored): pool.submit(left, many, 0.01, 90, anchored, 7) for many in users for anchored in (False, True)}
        text = table({key: one.result() for key, one in found.items()}, {key: one.result() for key, one in slides.items()}, given.nights)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    print(text)
    return 0


def table(found: dict[tuple[str, Case], float], slides: dict[tuple[int, bool], tuple[float, int]], nights: int) -> str:
    """The tables in Markdown."""
    shares = sorted({case.redrawn for kind, case in found if kind == FALSE})
    lines = [
        "# The gate, simulated",
        "",
        f"{nights:,} nights a cell; one held-out item a user; hit rate at ten .25; margin 2 %, interval 95 %.",
    ]
    for kind, said in (
        (FALSE, "A challenger that loses 2 % of its hits, which is the margin: share of nights that promote it (at most .03)."),
        (HARMLESS, "An equal challenger: share of nights that promote it, from that night's users alone."),
    ):
        lines += ["", f"## {kind.capitalize()}", "", said, ""]
        lines += [
            "| users a night | " + " | ".join(f"{one:.0%} of lists drawn anew" for one in shares) + " |",
            "|---" * (len(shares) + 1) + "|",
        ]
        for users in sorted({case.users for one, case in found if one == kind}):
            figures = [f"{value:.3f}" for (one, case), value in found.items() if one == kind and case.users == users]
            lines.append(f"| {users:,} | " + " | ".join(figures) + " |")
    lines += [
        "",
        "## Harmless veto",
        "",
        "An equal challenger, 2,000 users, 20 slices of 50 to 300 of them: share of nights that a slice stops (at most .05).",
        "",
    ]
    lines += ["| lists drawn anew | nights stopped |", "|---|---|"]
    lines += [f"| {case.redrawn:.0%} | {value:.3f} |" for (kind, case), value in found.items() if kind == SLICES]
    lines += [
        "",
        "## Ninety nights",
        "",
        "Every challenger has lost 1 % of the hits of its champion: what is left of the first champion's NDCG@10.",
        "",
    ]
    lines += ["| users a night | without an anchor (nights promoted) | with one |", "|---|---|---|"]
    for users in sorted({many for many, _ in slides}):
        without, kept = slides[users, False], slides[users, True]
        lines.append(f"| {users:,} | {without[0]:.3f} ({without[1]}) | {kept[0]:.3f} ({kept[1]}) |")
    stamp = f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}"
    lines += ["", f"{stamp}.\n\n    python -m benchmarks.gate {' '.join(sys.argv[1:])}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
