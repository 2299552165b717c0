"""Drift from night to night: how far the histograms that a night kept are from those of the last nights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightloom.core.divergence import psi
from nightloom.monitoring.alarms import REFERENCE
from nightloom.monitoring.days import Signal

PARTS = 10
"""Ranges that are compared, each with about as much of the last nights."""
LEAST = 0.02
"""Smallest index that is news. Under it is what chance does to a thousand draws (about 9 / 1,000), and a catalogue that always stays the
same would otherwise ring at its first new item."""
SAID = {
    "texts": "what the catalogue's texts are about: PSI of their vectors, along the direction that moved most",
    "scores": "how sure tonight's model is of a list's first item: PSI of its probability",
    "champion's scores": "how sure the champion is of a list's first item, for the same people: PSI of its probability",
}

Kept = Mapping[str, NDArray[np.float64]]
"""Name in `SAID` -> counts, [histograms, bins], of one night."""


@dataclass(frozen=True)
class Moved:
    """One histogram of the newest night beside that of the last nights.

    Attributes:
        name: in `SAID`.
        before: share of each bin in the mean of the last nights, float64 [bins].
        now: share of each bin in the newest night.
    """

    name: str
    before: NDArray[np.float64]
    now: NDArray[np.float64]


def drifts(nights: Sequence[Kept]) -> list[Signal]:
    """The course of each distance; a night without figures, or the first with them, has none.

    Args:
        nights: what each night kept, the oldest first.
    """
    found = []
    for name, said in SAID.items():
        apart = [against(nights, at, name) for at in range(len(nights))]
        values = np.array([np.nan if one is None else one[0].max() for one in apart])
        found.append(Signal(f"drift of {name}", said, values, rises=True, unit="distance", least=LEAST))
    return found


def moved(nights: Sequence[Kept]) -> list[Moved]:
    """The histogram that moved most of each name, where the newest night has one to compare; arguments as in `drifts`."""
    found = []
    for name in SAID:
        if apart := against(nights, len(nights) - 1, name) if nights else None:
            distances, before = apart
            row, now = int(distances.argmax()), nights[-1][name]
            found.append(Moved(name, *(one[row] / max(one[row].sum(), 1) for one in (before, now))))
    return found


def against(nights: Sequence[Kept], at: int, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """A night's distances from the last nights.

    Args:
        nights: what each night kept.
        at: which is compared.
        name: in `SAID`.

    Returns:
        The index of each histogram, float64 [histograms], and the mean of the last nights' counts, float64 [histograms, bins]; None where
        the night has no figures, or none before it has some of the same bins.
    """
    now = nights[at].get(name)
    before = [one[name] for one in nights[max(0, at - REFERENCE) : at] if name in one and now is not None and one[name].shape == now.shape]
    if now is None or not before:
        return None
    usual = np.mean(before, axis=0)
    return np.array([apart(one, other) for one, other in zip(usual, now, strict=True)]), usual


def apart(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """Population stability index of a histogram, by ranges that hold about as much of the one before.

    Args:
        before: counts by bin, the bins in their order.
        now: counts of the same bins.
    """
    total = np.cumsum(before)
    part = np.minimum((total - before) * PARTS // max(float(total[-1]), 1.0), PARTS - 1).astype(np.int64)
    return psi(*(np.bincount(part, weights=one, minlength=PARTS) for one in (before, now)))
