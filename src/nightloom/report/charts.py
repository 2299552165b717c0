"""Bars, intervals and curves of the report as positions: percent of an axis, or SVG units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nightloom.report import words

WIDTH, HEIGHT = 460, 170
"""Size of a learning curve, in SVG units."""


@dataclass(frozen=True)
class Bar:
    """One bar with its interval; positions are percent of the axis.

    Attributes:
        name: what it stands for.
        role: challenger, champion or baseline: decides the colour.
        value: the figure itself.
        interval: (low, high) of the figure, or None.
        width: length of the bar.
        low: where the interval begins.
        high: where it ends.
    """

    name: str
    role: str
    value: float
    interval: Sequence[float] | None
    width: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A learning curve in SVG units: the line, its best point, and the ends of both axes."""

    title: str
    points: str
    best: tuple[float, float]
    best_text: str
    ends: tuple[str, str, str, str]


def model_bars(report: Mapping[str, Any]) -> list[Bar]:
    """Every model on the gate's metric under its protocol, the best first."""
    protocol, metric = report["protocols"][0], report["gate"]["metric"]
    values = {family: report["metrics"][family][protocol].get(metric) for family in words.models(report, protocol)}
    rows = [(family, value, gate_interval(report, family)) for family, value in values.items() if value is not None]
    longest = max((max(value, *(interval or ())) if interval else value for _, value, interval in rows), default=0) or 1
    roles = {report["model"]: "challenger", "champion": "champion"}
    scale = 100 / longest
    return [
        Bar(family, roles.get(family, "baseline"), value, interval, value * scale, *(scale * end for end in interval or (value, value)))
        for family, value, interval in sorted(rows, key=lambda row: -row[1])
    ]


def gate_interval(report: Mapping[str, Any], family: str) -> Sequence[float] | None:
    """The interval of a model's mean on the gate's metric and protocol."""
    return words.interval_of(report, family, report["protocols"][0], report["gate"]["metric"])


def difference(report: Mapping[str, Any]) -> dict[str, float] | None:
    """Positions, in percent, of the difference, its interval, zero and the margin on one axis; None without a champion."""
    gate = report["gate"]
    if not words.has_champion(report) or not gate["interval"]:
        return None
    marks = {"low": gate["interval"][0], "high": gate["interval"][1], "value": gate["difference"], "zero": 0.0}
    if gate.get("threshold") is not None:
        marks["margin"] = gate["threshold"]
    least, most = min(marks.values()), max(marks.values())
    room = 0.14 * (most - least) or 1.0
    return {name: 100 * (value - least + room) / (most - least + 2 * room) for name, value in marks.items()}


def curves(report: Mapping[str, Any]) -> list[Curve]:
    """Loss and validation metric of every protocol by epoch."""
    return [_curve(protocol, key, epochs) for protocol, epochs in report["curves"].items() for key in _drawn(epochs)]


def _drawn(epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of curves.json that make a line."""
    return [key for key in ("loss", "validation_ndcg_at_10") if sum(epoch.get(key) is not None for epoch in epochs) > 1]


def _curve(protocol: str, key: str, epochs: Sequence[Mapping[str, Any]]) -> Curve:
    xs, ys = zip(*((epoch["epoch"], epoch[key]) for epoch in epochs if epoch.get(key) is not None), strict=True)
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    place = [
        (8 + (WIDTH - 16) * (x - left) / (right - left or 1), 10 + (HEIGHT - 20) * (high - y) / (high - low or 1))
        for x, y in zip(xs, ys, strict=True)
    ]
    at = (min if key == "loss" else max)(range(len(ys)), key=ys.__getitem__)
    name = "training loss" if key == "loss" else words.metric_label(key.removeprefix("validation_")) + " on validation"
    return Curve(
        f"{words.split(protocol).capitalize()}: {name}",
        " ".join(f"{x:.1f},{y:.1f}" for x, y in place),
        place[at],
        f"{'lowest' if key == 'loss' else 'best'} {ys[at]:.4f} at epoch {xs[at]}",
        (str(left), str(right), f"{low:.3f}", f"{high:.3f}"),
    )


def stage_bars(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Stages with bar lengths in percent of the longest time and of the highest peak memory."""
    stages = report["stages"]
    longest = max((stage["seconds"] or 0 for stage in stages.values()), default=0) or 1
    highest = max((stage["peak_mb"] or 0 for stage in stages.values()), default=0) or 1
    return [
        dict(stage, name=name, time=100 * (stage["seconds"] or 0) / longest, memory=100 * (stage["peak_mb"] or 0) / highest)
        for name, stage in stages.items()
    ]
