"""How often the watch over nights rings in vain, and how soon it rings when something has changed.

    python -m benchmarks.monitor [--runs 300] [--table FILE]

Ninety nights of a recommender are simulated in which chance alone changes things, with four weeks of history before them: counts with
weekly swings and a spread beyond chance, shares, distances with a long tail, the nights' quality, time and rows set aside. Texts and
scores are simulated one by one and go through the histograms of a night: a catalogue that trades 1 % of its items a night for others of
its kind, and two models whose scores each training moves. Then one signal is moved from the sixtieth night on, and stays so.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightloom.evaluation.drift import DIRECTIONS, PLACES, POWERS
from nightloom.monitoring import alarms
from nightloom.monitoring.drift import LEAST, Kept, drifts

NIGHTS, HISTORY, CHANGE = 90, alarms.REFERENCE, 60
RISES = (False, False, False, False, True, True, False, True, True, True, True, True)
WEEKLY = (True, True, *(False,) * 10)
SMALLEST = (*(0.0,) * 9, *(LEAST,) * 3)
ITEMS, TRADED, ASKED = 1_000, 10, 1_000
Change = Callable[[NDArray[np.float64]], NDArray[np.float64]]
MOVED: dict[str, tuple[int, Change]] = {
    "half the events": (0, lambda one: one * 0.5),
    "a quarter of the events": (0, lambda one: one / 4),
    "new items 3 times": (2, lambda one: one * 3),
    "positive share -20 %": (3, lambda one: one * 0.8),
    "popularity shifts (distance 5 times)": (4, lambda one: one * 5),
    "quality -20 %": (6, lambda one: one * 0.8),
}
DRIFTED: dict[str, tuple[float, float]] = {
    "a tenth of the texts in another language": (0.1, 0.0),
    "probabilities of first items halved": (0.0, float(np.log10(0.5))),
}
"""Share of foreign items in the catalogue, and by how much powers of ten of the probabilities move."""
CHANGED = {name: RISES[at] for name, (at, _) in MOVED.items()} | dict.fromkeys(DRIFTED, True)
THRESHOLDS = (3.0, 3.5, 4.0, 5.0, 6.0)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    random = np.random.default_rng(0)
    runs = [stationary(random) for _ in range(given.runs)]
    quiet = [[distances(*one) for one in zip(run, WEEKLY, SMALLEST, strict=True)] for run in runs]
    moved = {name: [moved_from(run[at], at, change) for run in runs[: given.runs // 4]] for name, (at, change) in MOVED.items()}
    for name, (foreign, shift) in DRIFTED.items():
        at = 9 if foreign else 10
        some = [drifted(random, foreign, shift)[at - 9] for _ in range(given.runs // 4)]
        moved[name] = [distances(one, WEEKLY[at], SMALLEST[at]) for one in some]
    rows = []
    for threshold in THRESHOLDS:
        vain = [sum(rings(one, rises, threshold).sum() for one, rises in zip(run, RISES, strict=True)) for run in quiet]
        found = []
        for name, courses in moved.items():
            delays = [delay(one, CHANGED[name], threshold) for one in courses]
            heard = [one for one in delays if one is not None]
            found.append(f"{len(heard) / len(delays):.2f}" + (f" after {np.median(heard):.0f}" if heard else ""))
        rows.append((f"{threshold:g}{' (used)' if threshold == alarms.FAR else ''}", f"{np.mean(vain):.2f}", *found))
    head = ("far is", "false alarms in 90 nights", *moved)
    text = "\n".join(
        [
            "# The watch over nights",
            "",
            f"{given.runs:,} simulated recommenders, {len(RISES)} signals each. A change stays from night {CHANGE} on: the share",
            "of runs in which its signal rings within a week, and the median of nights until then. An alarm needs",
            f"{alarms.NEEDED} far nights of the last {alarms.OF_LAST}, the newest among them.",
            "",
            *(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)),
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}). Command:",
            "",
            f"    python -m benchmarks.monitor {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def stationary(random: np.random.Generator) -> list[NDArray[np.float64]]:
    """All signals over history and ninety nights, none of which changes but by chance."""
    many = HISTORY + NIGHTS
    week = np.where(np.arange(many) % 7 >= 5, 0.6, 1.0)
    events = random.poisson(2_000 * week * np.exp(random.normal(0, 0.2, many))).astype(float)
    users = random.poisson(events / 8).astype(float)
    new, positive = (random.binomial(2_000, random.beta(a, b, many)) / 2_000 for a, b in ((20, 380), (550, 450)))
    popularity, hours = (random.gamma(3, scale, many) for scale in (0.01, 0.002))
    quality, seconds = random.normal(0.128, 0.004, many), 120 * np.exp(random.normal(0, 0.12, many))
    own = [events, users, new, positive, popularity, hours, quality, random.poisson(2.0, many).astype(float), seconds]
    return own + drifted(random, 0.0, 0.0)


def drifted(random: np.random.Generator, foreign: float, shift: float) -> list[NDArray[np.float64]]:
    """Distances of texts, scores and the champion's scores over history and ninety nights.

    Items lie as films' titles in all-MiniLM-L6-v2 do: a mean for each direction, and a spread of .7 around it. Those of another language
    have other means, which are as far apart as Chinese titles were from English ones.

    Args:
        random: draws everything.
        foreign: share of the catalogue that is of another language from the change on.
        shift: of the powers of ten of all probabilities from the change on.
    """
    means, others = random.normal(0, 0.9, (2, DIRECTIONS))
    items = random.normal(means, 0.7, (ITEMS, DIRECTIONS))
    sure, kept = random.normal(0, 0.02, (2, HISTORY + NIGHTS)), list[Kept]()
    for night in range(HISTORY + NIGHTS):
        late = night >= HISTORY + CHANGE
        items[random.choice(ITEMS, TRADED, replace=False)] = random.normal(means, 0.7, (TRADED, DIRECTIONS))
        there = np.concatenate([items, random.normal(others, 0.7, (int(foreign * ITEMS) if late else 0, DIRECTIONS))])
        powers = [random.normal(-1.3 + model[night] + shift * late, 0.4, ASKED) for model in sure]
        counts = [np.stack([bins(PLACES, one) for one in there.T]), *(bins(POWERS, one)[None] for one in powers)]
        kept.append(dict(zip(("texts", "scores", "champion's scores"), counts, strict=True)))
    return [one.values for one in drifts(kept)]


def bins(edges: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values by bin, as a night keeps them."""
    return np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).astype(float)


def distances(signal: NDArray[np.float64], weekly: bool, least: float) -> NDArray[np.float64]:
    """How far each of the ninety nights is, and the two before them; see `nightloom.monitoring.alarms.how_far`."""
    nights = range(HISTORY - alarms.OF_LAST + 1, len(signal))
    return np.array([alarms.how_far(signal[max(0, at - alarms.REFERENCE) : at + 1], weekly, least)[0] for at in nights])


def moved_from(signal: NDArray[np.float64], at: int, change: Change) -> NDArray[np.float64]:
    """The distances of a signal that is moved from one night on."""
    moved = signal.copy()
    moved[HISTORY + CHANGE :] = change(moved[HISTORY + CHANGE :])
    return distances(moved, WEEKLY[at], SMALLEST[at])


def rings(distance: NDArray[np.float64], rises: bool, threshold: float) -> NDArray[np.bool_]:
    """Whether each of the ninety nights rings, bool [90]; as `nightloom.monitoring.alarms.judge`, all nights at once."""
    far = (distance if rises else np.abs(distance)) > threshold
    windows = np.lib.stride_tricks.sliding_window_view(far, alarms.OF_LAST)
    return np.asarray(windows[:, -1] & (windows.sum(1) >= alarms.NEEDED))


def delay(distance: NDArray[np.float64], rises: bool, threshold: float) -> int | None:
    """Nights until the change rings, within a week; None where it does not."""
    heard = np.flatnonzero(rings(distance, rises, threshold)[CHANGE : CHANGE + 7])
    return int(heard[0]) + 1 if len(heard) else None


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor", description="False alarms and delays of the watch over nights.")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--table", type=Path, help="also write the page to this Markdown file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
