"""All that is watched of one recommender, and what rings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nightloom.config import RunConfig
from nightloom.core.errors import InputError
from nightloom.data.preparation.labels import is_positive
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.monitoring.alarms import Verdict, judge
from nightloom.monitoring.course import Past, backfills, costs, past_nights, silent
from nightloom.monitoring.days import Signal, signals
from nightloom.monitoring.drift import Moved, drifts, moved
from nightloom.runs.stages import Night


@dataclass(frozen=True)
class Watched:
    """One signal's course and what it says.

    Attributes:
        signal: the figures, a day or a night each.
        verdict: of the newest.
    """

    signal: Signal
    verdict: Verdict

    def words(self) -> str:
        """The newest figure beside the usual one."""
        value, unit = float(self.signal.values[-1]), self.signal.unit
        if not np.isfinite(value):
            return f"{self.signal.name}: no figure"
        form = {"count": "{:,.0f}", "share": "{:.1%}", "distance": "{:.3f}"}[unit]
        usual = f", usually {form.format(self.verdict.usual)}" if np.isfinite(self.verdict.usual) else ""
        return f"{self.signal.name}: {form.format(value)}{usual}"


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        name: of the recommender.
        made: when.
        days: the dates of the daily figures.
        daily: signals of the events.
        nightly: signals of the nights.
        nights: the past nights, the oldest first.
        calendar: the same with those of past days among them, the last that ended first.
        costs: see `nightloom.monitoring.course.costs`.
        alarms: what rings, in words; the newest night or day is concerned in each.
        moved: histograms of the newest night beside those of the last nights.
    """

    name: str
    made: datetime
    days: Sequence[str]
    daily: Sequence[Watched]
    nightly: Sequence[Watched]
    nights: Sequence[Past]
    calendar: Sequence[Past]
    costs: Sequence[Mapping[str, Any]]
    alarms: Sequence[str]
    moved: Sequence[Moved] = ()


def watch(config: RunConfig, root: Path, now: datetime | None = None) -> Found:
    """Watch the newest snapshot and the past nights of a recommender; nothing is collected or trained.

    Args:
        config: of the recommender.
        root: the mlruns folder.
        now: as of when; None is now.

    Raises:
        InputError: no night has left a report, or its snapshot is not here.
    """
    now = now or datetime.now(UTC)
    nights = past_nights(root, config.name)
    days, daily = _daily(config, root)
    nightly = [Watched(one, judge(one.values, rises=one.rises, least=one.least)) for one in _nightly(nights)]
    alarms = [one.words() for one in (*daily, *nightly) if one.verdict.rings]
    if words := silent(nights, now):
        alarms.insert(0, words)
    calendar = sorted((*nights, *backfills(root, config.name)), key=lambda one: one.finished, reverse=True)
    histograms = moved([one.drift for one in nights])
    return Found(config.name, now, days, daily, nightly, nights, calendar, costs(nights), alarms, histograms)


def _daily(config: RunConfig, root: Path) -> tuple[list[str], list[Watched]]:
    """The signals of the newest snapshot's events; none where the events have an order and no times."""
    said = Night.start(config, root).last_report() or {}
    folder = root / "snapshots" / config.name / str(said.get("data_hash"))[:16]
    if not folder.is_dir():
        raise InputError(f"{folder}: the snapshot of the last night is not here. Run a night, or watch where nights run.")
    events = read_snapshot(folder).events
    if not isinstance(events["timestamp"].dtype, pd.DatetimeTZDtype):
        return [], []
    days, found = signals(events, is_positive(events, config.prepare))
    dates = pd.to_datetime(days, unit="D").strftime("%Y-%m-%d").tolist()
    return dates, [Watched(one, judge(one.values, rises=one.rises, weekly=one.unit == "count")) for one in found]


def _nightly(nights: Sequence[Past]) -> list[Signal]:
    """The signals of the nights' own figures."""
    quality = np.array([np.nan if one.quality is None else one.quality for one in nights])
    known = np.array([np.nan if one.known is None else one.known for one in nights])
    seconds = np.array([sum(took for took, *_ in one.stages.values()) or np.nan for one in nights])
    return [
        Signal("quality", "the gate's metric of each night's model", quality, False, "distance"),
        Signal("known items", "share of the catalogue that the champion was trained on", known, False, "share"),
        *drifts([one.drift for one in nights]),
        Signal("set aside", "rows that the contract quarantined", np.array([float(one.quarantined) for one in nights]), True, "count"),
        Signal("seconds", "time of the stages that ran", seconds, True, "count"),
    ]
