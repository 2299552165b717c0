"""What past nights left: when they ran, what was decided, how good the model was, what they cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nightloom.core.errors import InputError
from nightloom.monitoring.drift import SAID, Kept
from nightloom.runs.backfill import FOLDER

NIGHTS = 14
"""Nights that the newest is compared with."""
WATTS = 10.0
"""Of a core at work, for the estimate of energy: 250 W of a server's processor are 8 for each of 32 cores; memory and losses are added."""
SILENCE = timedelta(hours=26)
"""So long after a good night the next one is missing: a day, and time for it to run."""


@dataclass(frozen=True)
class Past:
    """One night.

    Attributes:
        night: its folder's name.
        finished: when.
        outcome: what was decided.
        quality: the gate's metric of its model, by the first protocol; None where it was not measured.
        quarantined: rows set aside.
        stages: stage -> seconds, peak MB and CPU seconds of those that ran; these are None where an old night did not note them.
        known: share of its catalogue that the champion of that night had been trained on; None where none was compared.
        as_of: the past day that it is a night of.
        drift: the histograms that it kept; empty in an old night.
    """

    night: str
    finished: datetime
    outcome: str
    quality: float | None
    quarantined: int
    stages: Mapping[str, tuple[float, float, float | None]]
    known: float | None = None
    as_of: str | None = None
    drift: Kept = field(default_factory=dict)


def past_nights(root: Path, name: str) -> list[Past]:
    """The nights of a recommender that left a report, the oldest first; those of past days are left out.

    Args:
        root: the mlruns folder.
        name: of the recommender.

    Raises:
        InputError: there are none.
    """
    found = _read(root, name, "[0-9]*")
    if not found:
        raise InputError(f"{root / 'nights' / name}: no night of {name!r} has left a report. Run one first.")
    return found


def backfills(root: Path, name: str) -> list[Past]:
    """Nights of past days, the oldest first: they are shown, and not watched.

    Args:
        root: the mlruns folder.
        name: of the recommender.
    """
    return _read(root, name, f"{FOLDER}*")


def _read(root: Path, name: str, which: str) -> list[Past]:
    found = []
    for file in sorted((root / "nights" / name).glob(f"{which}/report.json")):
        report = json.loads(file.read_text(encoding="utf-8"))
        protocol, metric = report["protocols"][0], report["gate"].get("metric")
        quality = report["metrics"].get(report["model"], {}).get(protocol, {}).get(metric)
        ran = {stage: said for stage, said in report["stages"].items() if said["status"] == "done" and said["seconds"] is not None}
        stages = {stage: (said["seconds"], said["peak_mb"] or 0.0, said.get("cpu_seconds")) for stage, said in ran.items()}
        finished = datetime.fromisoformat(report["finished"])
        figures = _evaluated(file.parent)
        known = figures.get("rivals", {}).get("champion", {}).get("knows_share")
        drift = {name: np.array(counts, dtype=np.float64) for name, counts in figures.get("drift", {}).items() if name in SAID}
        said = (report["night"], finished, report["outcome"], quality, sum(report["quarantined"].values()), stages)
        found.append(Past(*said, known=known, as_of=report.get("as_of"), drift=drift))
    return sorted(found, key=lambda one: one.finished)


def _evaluated(folder: Path) -> dict[str, Any]:
    """What stage evaluate of a night noted; empty where it did not come so far."""
    made = folder / "manifests" / "evaluate.json"
    figures: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))["figures"] if made.is_file() else {}
    return figures


def silent(nights: Sequence[Past], now: datetime | None = None) -> str | None:
    """What to say where no good night was seen for too long; None where there was one."""
    now = now or datetime.now(UTC)
    last = max((one.finished for one in nights), default=None)
    if last is not None and now - last <= SILENCE:
        return None
    return f"no night has ended for {int((now - last).total_seconds() // 3600):,} hours" if last else "no night has ended"


def costs(nights: Sequence[Past]) -> list[dict[str, Any]]:
    """Time, memory, CPU seconds and energy of each stage of the newest night, beside the median of the nights before it."""
    if not nights:
        return []
    newest, before = nights[-1], nights[-1 - NIGHTS : -1]
    rows = []
    for stage, (seconds, peak, cpu) in newest.stages.items():
        theirs = [one.stages[stage] for one in before if stage in one.stages]
        usual, memory, cpus = (_median(one) for one in zip(*theirs, strict=True)) if theirs else (None, None, None)
        one = {"stage": stage, "seconds": seconds, "usual": usual, "peak_mb": peak, "usual_mb": memory}
        rows.append(one | {"cpu_seconds": cpu, "usual_cpu": cpus, "watt_hours": None if cpu is None else cpu * WATTS / 3600})
    return rows


def _median(values: Iterable[float | None]) -> float | None:
    """Of the values that are known."""
    return median(known) if (known := [one for one in values if one is not None]) else None
