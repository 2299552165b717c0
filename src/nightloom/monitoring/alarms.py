"""When a figure is an alarm: far from what it used to be, on several of the last days, the newest among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REFERENCE = 28
"""Days by which a figure is judged, the latest before it."""
FEWEST = 10
"""Days of them with a figure, or it is not judged."""
WEEK = 7
OF_LAST, NEEDED = 3, 2
"""An alarm needs so many far days among the last, and the newest day must be one of them."""
FAR = 3.5
"""Robust standard deviations from the median that are far. Chosen by `benchmarks.monitor`: ninety stationary nights of twelve signals
ring in vain less than once in the mean, with weekly and random swings too."""
FLOOR = 0.02
"""Least spread, as a share of the median's size: a figure that never moved would else ring at its first twitch."""


@dataclass(frozen=True)
class Verdict:
    """What a figure's course says.

    Attributes:
        distance: robust standard deviations from the median, of each of the last `OF_LAST` days, the newest last; NaN without enough days.
        rings: whether it is an alarm.
        usual: median of the reference of the newest day; NaN without enough days.
    """

    distance: NDArray[np.float64]
    rings: bool
    usual: float


def judge(values: NDArray[np.float64], *, rises: bool = False, weekly: bool = False, least: float = 0.0) -> Verdict:
    """Judge the newest day of a course.

    Args:
        values: float64 [days], the newest last; NaN is a day without a figure.
        rises: whether only a rise is news.
        weekly: whether they are counts that follow the week: a day is then compared on the scale of logarithms with the others, after each
            day's share of its week is taken off.
        least: smallest step from the median that is news; not for weekly counts.
    """
    distance, usual = np.full(OF_LAST, np.nan), np.nan
    for back in range(min(OF_LAST, len(values))):
        at = len(values) - 1 - back
        found, middle = how_far(values[max(0, at - REFERENCE) : at + 1], weekly, least)
        distance[OF_LAST - 1 - back] = found
        usual = middle if back == 0 else usual
    far = np.nan_to_num(distance if rises else np.abs(distance), nan=0.0) > FAR
    return Verdict(distance, bool(far[-1] and far.sum() >= NEEDED), usual)


def how_far(values: NDArray[np.float64], weekly: bool, least: float = 0.0) -> tuple[float, float]:
    """Robust standard deviations of the last value from the median of those before it, and that median; NaN without enough days.

    The spread is the median absolute deviation, 1.4826 of which is a normal distribution's standard deviation (Hampel 1974): the strange
    days themselves move it little.

    Args:
        values: float64 [days], `REFERENCE` days and the one that is judged.
        weekly: see `judge`.
        least: see `judge`; a smaller step has no distance.
    """
    scale = np.log(np.maximum(values, 0.5)) if weekly else values
    before = scale[:-1]
    if np.isfinite(before).sum() < FEWEST or not np.isfinite(scale[-1]):
        return np.nan, np.nan
    swing = 0.0
    if weekly and len(scale) > 2 * WEEK:
        swings = np.array([_same_day_of_week(before, at) for at in range(len(scale))])
        scale, swing = scale - swings, float(swings[-1])
        before = scale[:-1]
    middle = float(np.nanmedian(before))
    spread = max(1.4826 * float(np.nanmedian(np.abs(before - middle))), FLOOR * (1.0 if weekly else abs(middle)), 1e-9)
    usual = float(np.exp(middle + swing)) if weekly else middle
    step = float(scale[-1] - middle)
    return (step / spread if abs(step) >= least else 0.0), usual


def _same_day_of_week(before: NDArray[np.float64], at: int) -> float:
    """Median of the other days that are whole weeks from a day; the day itself would make the spread seem smaller than it is."""
    others = before[np.flatnonzero(((np.arange(len(before)) - at) % WEEK == 0) & (np.arange(len(before)) != at))]
    finite = others[np.isfinite(others)]
    return float(np.median(finite)) if len(finite) else np.nan
