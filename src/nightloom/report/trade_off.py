"""The trade-off of the popularity penalty as lines over its strength, in SVG units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nightloom.report.charts import HEIGHT, WIDTH

LINES = (
    ("ndcg_at_10", "NDCG@10", "{:.4f}"),
    ("aplt", "Tail share of lists (APLT@10)", "{:.3f}"),
    ("tail_items", "Distinct tail items", "{:,.0f}"),
    ("arp", "Mean popularity of lists (ARP@10)", "{:,.0f}"),
    ("gini", "Exposure Gini@10", "{:.3f}"),
)
"""Figure, title, how it is written."""


@dataclass(frozen=True)
class Line:
    """One figure over the strength.

    Attributes:
        title: what it is.
        points: of the line.
        band: of the interval's area, empty without one.
        chosen: where the model itself stands.
        said: its figure there, and without a penalty, in words.
        low: the lower end of the axis.
        high: the upper end.
        ends: the least and the greatest strength.
    """

    title: str
    points: str
    band: str
    chosen: tuple[float, float]
    said: str
    low: str
    high: str
    ends: tuple[str, str]


def drawn(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each protocol that was measured: `protocol`, `queries`, `chosen` and `lines`."""
    found = []
    for protocol, one in report["trade_off"].items():
        if one.get("rows"):
            lines = [_line(one["rows"], one["chosen"], *about) for about in LINES]
            found.append({"protocol": protocol, "queries": one["queries"], "chosen": one["chosen"], "lines": lines})
    return found


def _line(rows: Sequence[Mapping[str, Any]], chosen: float, key: str, title: str, form: str) -> Line:
    xs, ys = [row["strength"] for row in rows], [row[key] for row in rows]
    band = [[ys[0] * (1 + row[end]) for row in rows] for end in ("low", "high")] if key == "ndcg_at_10" else []
    every = [*ys, *(value for edge in band for value in edge)]
    left, right, low, high = min(xs), max(xs), min(every), max(every)

    def place(x: float, y: float) -> tuple[float, float]:
        return 8 + (WIDTH - 16) * (x - left) / (right - left or 1), 10 + (HEIGHT - 20) * (high - y) / (high - low or 1)

    def text(ends: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in ends)

    area = [*map(place, xs, band[0]), *reversed([*map(place, xs, band[1])])] if band else []
    here = min(max(chosen, left), right)
    value = _between(xs, ys, here)
    said = f"{form.format(value)} at {here:g}" + (f", {form.format(ys[0])} without" if here else "")
    ends = (f"{left:g}", f"{right:g}")
    return Line(title, text([*map(place, xs, ys)]), text(area), place(here, value), said, form.format(low), form.format(high), ends)


def _between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """The figure at a strength that may lie between two that were tried."""
    for at in range(1, len(xs)):
        if x <= xs[at]:
            share = (x - xs[at - 1]) / (xs[at] - xs[at - 1])
            return ys[at - 1] + share * (ys[at] - ys[at - 1])
    return ys[-1]
