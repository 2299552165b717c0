"""The page of what is watched: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from nightloom.monitoring.alarms import REFERENCE
from nightloom.monitoring.course import WATTS
from nightloom.monitoring.drift import Moved
from nightloom.monitoring.watch import Found, Watched

WIDTH, HEIGHT, EDGE = 300, 64, 6
"""Of a course, in SVG units."""
STEPS = 40
"""Most steps of a drawn histogram: bins next to each other are drawn as one."""


@dataclass(frozen=True)
class Course:
    """A drawn course: line, newest point, and the band of usual figures, in SVG units."""

    watched: Watched
    lines: Sequence[str]
    newest: tuple[float, float] | None
    band: tuple[float, float] | None


@dataclass(frozen=True)
class Shape:
    """Two drawn histograms: the last nights' mean as an area, the newest night's as a line, in SVG units."""

    name: str
    before: str
    now: str


def render(found: Found) -> str:
    """Write the page.

    Args:
        found: what was watched.

    Returns:
        The whole HTML document.
    """
    own, report = Path(__file__).parent, Path(__file__).parents[1] / "report" / "templates"
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(own), FileSystemLoader(report)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("monitor.html.j2").render(
        found=found,
        daily=[course(one) for one in found.daily],
        nightly=[course(one) for one in found.nightly],
        shapes=[shape(one) for one in found.moved],
        width=WIDTH,
        height=HEIGHT,
        watts=WATTS,
    )


def course(watched: Watched) -> Course:
    """Lay out one signal's course."""
    values = watched.signal.values
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return Course(watched, [], None, None)
    reference = values[-1 - REFERENCE : -1]
    reference = reference[np.isfinite(reference)]
    ends = np.percentile(reference, [5, 95]) if len(reference) else values[finite][[0, 0]]
    low, high = min(values[finite].min(), ends[0]), max(values[finite].max(), ends[1])

    def up(value: float) -> float:
        return float(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (value - low) / ((high - low) or 1))

    def along(at: int) -> float:
        return float(EDGE + (WIDTH - 2 * EDGE) * at / max(len(values) - 1, 1))

    lines = [" ".join(f"{along(at):.1f},{up(values[at]):.1f}" for at in part) for part in _runs(finite)]
    last = int(finite[-1])
    return Course(watched, lines, (along(last), up(values[last])), (up(ends[1]), max(up(ends[0]) - up(ends[1]), 1.0)))


def shape(moved: Moved) -> Shape:
    """Lay out two histograms, over the bins that hold something."""
    filled = np.flatnonzero((moved.before > 0) | (moved.now > 0))
    wide = -(-(int(filled[-1]) + 1 - int(filled[0])) // STEPS)
    starts = np.arange(int(filled[0]), int(filled[-1]) + 1, wide)
    before, now = (np.add.reduceat(one, starts) for one in (moved.before, moved.now))
    most = max(float(before.max()), float(now.max()))

    def steps(shares: NDArray[np.float64]) -> str:
        across = EDGE + (WIDTH - 2 * EDGE) * np.arange(len(shares) + 1) / len(shares)
        up = HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * shares / most
        corners = [f"{x:.1f},{y:.1f}" for one, y in enumerate(up) for x in across[one : one + 2]]
        return " ".join((f"{across[0]:.1f},{HEIGHT - EDGE}", *corners, f"{across[-1]:.1f},{HEIGHT - EDGE}"))

    return Shape(moved.name, steps(before), steps(now))


def _runs(places: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Places next to each other, so that a line does not run over a gap."""
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
