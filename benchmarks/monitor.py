"""How often the watch over nights rings in vain, and how soon it rings when something has changed.

    python -m benchmarks.monitor [--runs 300] [--table FILE]

Ninety nights of a recommender are simulated in which chance alone changes things, with four weeks of history before them: counts with
weekly swings and a spread beyond chance, shares, distances with a long tail, the nights' quality, time and rows set aside. Then one
signal is moved from the sixtieth night on, and stays so.
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

from nightloom.monitoring import alarms

NIGHTS, HISTORY, CHANGE = 90, alarms.REFERENCE, 60
RISES = (False, False, False, False, True, True, False, True, True)
WEEKLY = (True, True, False, False, False, False, False, False, False)
Change = Callable[[NDArray[np.float64]], NDArray[np.float64]]
MOVED: dict[str, tuple[int, Change]] = {
    "half the events": (0, lambda one: one * 0.5),
    "a quarter of the events": (0, lambda one: one / 4),
    "new items 3 times": (2, lambda one: one * 3),
    "positive share -20 %": (3, lambda one: one * 0.8),
    "popularity shifts (distance 5 times)": (4, lambda one: one * 5),
    "quality -20 %": (6, lambda one: one * 0.8),
}
THRESHOLDS = (3.0, 3.5, 4.0, 5.0, 6.0)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    random = np.random.default_rng(0)
    runs = [stationary(random) for _ in range(given.runs)]
    quiet = [[distances(one, weekly) for one, weekly in zip(run, WEEKLY, strict=True)] for run in runs]
    moved = {name: [moved_from(run[at], WEEKLY[at], change) for run in runs[: given.runs // 4]] for name, (at, change) in MOVED.items()}
    rows = []
    for threshold in THRESHOLDS:
        vain = [sum(rings(one, rises, threshold).sum() for one, rises in zip(run, RISES, strict=True)) for run in quiet]
        found = []
        for name, (at, _) in MOVED.items():
            delays = [delay(one, RISES[at], threshold) for one in moved[name]]
            heard = [one for one in delays if one is not None]
            found.append(f"{len(heard) / len(delays):.2f}" + (f" after {np.median(heard):.0f}" if heard else ""))
        rows.append((f"{threshold:g}{' (used)' if threshold == alarms.FAR else ''}", f"{np.mean(vain):.2f}", *found))
    head = ("far is", "false alarms in 90 nights", *MOVED)
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
    """The nine signals over history and ninety nights, none of which changes but by chance."""
    many = HISTORY + NIGHTS
    week = np.where(np.arange(many) % 7 >= 5, 0.6, 1.0)
    events = random.poisson(2_000 * week * np.exp(random.normal(0, 0.2, many))).astype(float)
    users = random.poisson(events / 8).astype(float)
    new, positive = (random.binomial(2_000, random.beta(a, b, many)) / 2_000 for a, b in ((20, 380), (550, 450)))
    popularity, hours = (random.gamma(3, scale, many) for scale in (0.01, 0.002))
    quality, seconds = random.normal(0.128, 0.004, many), 120 * np.exp(random.normal(0, 0.12, many))
    return [events, users, new, positive, popularity, hours, quality, random.poisson(2.0, many).astype(float), seconds]


def distances(signal: NDArray[np.float64], weekly: bool) -> NDArray[np.float64]:
    """How far each of the ninety nights is, and the two before them; see `nightloom.monitoring.alarms.how_far`."""
    nights = range(HISTORY - alarms.OF_LAST + 1, len(signal))
    return np.array([alarms.how_far(signal[max(0, at - alarms.REFERENCE) : at + 1], weekly)[0] for at in nights])


def moved_from(signal: NDArray[np.float64], weekly: bool, change: Change) -> NDArray[np.float64]:
    """The distances of a signal that is moved from one night on."""
    moved = signal.copy()
    moved[HISTORY + CHANGE :] = change(moved[HISTORY + CHANGE :])
    return distances(moved, weekly)


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
