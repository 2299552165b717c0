"""The report as one HTML file that needs nothing else: styles and images are inside, nothing is fetched."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nightloom.report import words

TABLE = (*words.MAIN_METRICS, "recall_at_10", "coverage_at_10", "novelty_at_10", "popularity_bias_at_10")
"""Columns of the families table, those that were measured."""
RANKING = frozenset((*words.MAIN_METRICS, "recall_at_10", "coverage_at_10"))
"""Columns of which more is always better, so that the best can be marked."""
SHOWN_EXPLANATIONS = 4
WIDTH, HEIGHT = 460, 170
"""Size of a learning curve, in SVG units."""


def render_html(report: Mapping[str, Any], plots: Mapping[str, Path]) -> str:
    """Write the report for people.

    Args:
        report: what `build_report` gave.
        plots: caption -> PNG file; each becomes part of the page.

    Returns:
        The whole HTML document.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "label": words.metric_label,
        "spoken": words.spoken,
        "number": words.number,
        "signed": words.signed,
        "duration": words.duration,
        "started": words.started,
        "purchased": words.purchased,
        "labelled": words.labelled,
        "span": words.span,
    }
    return environment.get_template("template.html.j2").render(
        report=report,
        headline=words.headline(report),
        reasons=words.reasons(report),
        confidence=words.confidence(report),
        tiles=_tiles(report),
        bars=_family_bars(report),
        difference=_difference(report),
        tables=[_table(report, protocol) for protocol in report["protocols"] if words.families(report, protocol)],
        slices=_slices(report),
        curves=[_curve(protocol, key, epochs) for protocol, epochs in report["curves"].items() for key in _drawn(epochs)],
        shares={protocol: words.shares(found) for protocol, found in report["training"].items()},
        explanations=report["explanations"].get("sample", [])[:SHOWN_EXPLANATIONS],
        pictures=words.pictures(report),
        stages=_stages(report),
        next_steps=words.next_steps(report),
        config=json.dumps(report["config"], indent=2, ensure_ascii=False),
        plots={caption: _data_uri(path) for caption, path in plots.items()},
    )


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


def _tiles(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(label, figure, note): what a reader looks for first."""
    gate, protocol = report["gate"], report["protocols"][0]
    label, tiles = words.metric_label(gate["metric"]), []
    for family, role in ((report["model"], "challenger"), ("champion", "champion")):
        value = gate.get(role)
        if value is None:
            value = report["metrics"].get(family, {}).get(protocol, {}).get(gate["metric"])
        if value is not None:
            tiles.append((f"{role.capitalize()}, {label}", words.number(value), words.span(_interval(report, family))))
    if words.has_champion(report):
        note = f"{words.confidence(report)}: {words.span(gate['interval'], sign=True)}"
        tiles.append(("Difference", words.signed(gate["difference"]), note))
    if gate.get("users"):
        tiles.append(("Held-out users", f"{gate['users']:,}", words.spoken(protocol) + " split"))
    reused = sum(stage["status"] == "reused" for stage in report["stages"].values())
    peak = words.peak_mb(report)
    note = f"{reused} stage{'s' if reused > 1 else ''} reused" if reused else "all stages made tonight"
    tiles.append(("Time", words.duration(words.total_seconds(report)), note))
    if peak:
        tiles.append(("Peak memory", f"{peak / 1024:.1f} GiB", "with all child processes"))
    return tiles


def _family_bars(report: Mapping[str, Any]) -> list[Bar]:
    """Every family on the gate's metric under its protocol, the best first."""
    protocol, metric = report["protocols"][0], report["gate"]["metric"]
    values = {family: report["metrics"][family][protocol].get(metric) for family in words.families(report, protocol)}
    rows = [(family, value, _interval(report, family)) for family, value in values.items() if value is not None]
    longest = max((max(value, *(interval or ())) if interval else value for _, value, interval in rows), default=0) or 1
    roles = {report["model"]: "challenger", "champion": "champion"}
    scale = 100 / longest
    return [
        Bar(family, roles.get(family, "baseline"), value, interval, value * scale, *(scale * end for end in interval or (value, value)))
        for family, value, interval in sorted(rows, key=lambda row: -row[1])
    ]


def _interval(report: Mapping[str, Any], family: str) -> Sequence[float] | None:
    return words.interval_of(report, family, report["protocols"][0], report["gate"]["metric"])


def _difference(report: Mapping[str, Any]) -> dict[str, float] | None:
    """Positions, in percent, of the difference, its interval, zero and the margin on one axis."""
    gate = report["gate"]
    if not words.has_champion(report) or not gate["interval"]:
        return None
    marks = {"low": gate["interval"][0], "high": gate["interval"][1], "value": gate["difference"], "zero": 0.0}
    if gate.get("threshold") is not None:
        marks["margin"] = gate["threshold"]
    least, most = min(marks.values()), max(marks.values())
    room = 0.14 * (most - least) or 1.0
    return {name: 100 * (value - least + room) / (most - least + 2 * room) for name, value in marks.items()}


def _table(report: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    families = words.families(report, protocol)
    measured = {family: report["metrics"][family][protocol] for family in families}
    columns = [metric for metric in TABLE if any(metric in found for found in measured.values())]
    best = {metric: words.best(report, protocol, metric) for metric in columns if metric in RANKING}
    return {
        "protocol": protocol,
        "columns": columns,
        "best": best,
        "rows": measured,
        "all": sorted({metric for found in measured.values() for metric in found}),
    }


def _slices(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model beside the champion, or beside the best baseline where there is no champion, on every slice."""
    protocol, metric = report["protocols"][0], report["gate"]["metric"]
    mine = report["slices"].get(report["model"], {}).get(protocol)
    if not mine:
        return None
    others = [family for family in words.families(report, protocol) if family not in (report["model"], "champion")]
    other = "champion" if "champion" in report["slices"] else next(iter(others), None)
    its = report["slices"].get(other, {}).get(protocol, {})
    vetoes = set(report["gate"].get("guards") or ()) if words.has_champion(report) else set()
    rows = [
        {"name": name, "users": found["users"], "mine": found.get(metric), "other": its.get(name, {}).get(metric), "veto": name in vetoes}
        for name, found in mine.items()
    ]
    longest = max((value for row in rows for value in (row["mine"], row["other"]) if value), default=1.0)
    return {"rows": rows, "metric": metric, "model": report["model"], "other": other, "scale": 100 / longest}


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
        f"{words.spoken(protocol).capitalize()}: {name}",
        " ".join(f"{x:.1f},{y:.1f}" for x, y in place),
        place[at],
        f"{'lowest' if key == 'loss' else 'best'} {ys[at]:.4f} at epoch {xs[at]}",
        (str(left), str(right), f"{low:.3f}", f"{high:.3f}"),
    )


def _stages(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Stages with bar lengths in percent of the slowest and of the hungriest."""
    stages = report["stages"]
    slowest = max((stage["seconds"] or 0 for stage in stages.values()), default=0) or 1
    hungriest = max((stage["peak_mb"] or 0 for stage in stages.values()), default=0) or 1
    return [
        dict(stage, name=name, time=100 * (stage["seconds"] or 0) / slowest, memory=100 * (stage["peak_mb"] or 0) / hungriest)
        for name, stage in stages.items()
    ]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
