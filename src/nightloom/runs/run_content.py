"""What MLflow keeps of a night, as tags, parameters and points of metrics: (name, value, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightloom.core.markup import plain_markdown
from nightloom.core.secrets import hidden

OUTCOME_TAG, GATE_TAG, NOTE_TAG = "nightloom.outcome", "nightloom.gate", "mlflow.note.content"
CURVES = ("loss", "validation_ndcg_at_10", "learning_rate", "seconds")
"""What of an epoch is drawn over epochs."""
Point = tuple[str, float, int]


def outcome_content(outcome: str, gate: Mapping[str, Any], headline: str, reasons: Sequence[str]) -> tuple[dict[str, str], list[Point]]:
    """Tags and figures of what became of a night; arguments as in `Tracking.log_outcome`.

    The difference is that to the champion, or to the best baseline where there was no champion. The note may quote the
    data, so it holds no HTML.
    """
    other, (difference, low, high) = _compared(gate)
    figures = {"difference": difference, "low": low, "high": high} | {name: gate.get(name) for name in ("challenger", "champion")}
    note = "\n".join([f"**{plain_markdown(headline)}**", "", *(f"- {plain_markdown(reason)}" for reason in reasons)])
    tags = {OUTCOME_TAG: outcome, NOTE_TAG: hidden(note)}
    if low is not None:
        tags[GATE_TAG] = f"{gate['metric']} {difference:+.4f} ({low:+.4f} to {high:+.4f}) against {other}"
    return tags, [(f"gate/{name}", float(value), 0) for name, value in figures.items() if value is not None]


def _compared(gate: Mapping[str, Any]) -> tuple[str, tuple[float | None, float | None, float | None]]:
    """What the challenger was compared with, and the difference with its interval; None where there was nothing."""
    if gate.get("interval"):
        return "the champion", (gate["difference"], *gate["interval"])
    best = max(gate.get("baselines") or (), key=lambda one: one["other"], default=None)
    return (best["name"], (best["difference"], best["low"], best["high"])) if best else ("", (None, None, None))


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level: `{"training": {"epochs": 5}}` -> `{"training.epochs": 5}`."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return flat


def epoch_points(protocol: str, epoch: Mapping[str, Any]) -> list[Point]:
    """An epoch's numbers as points of curves over epochs."""
    return [
        (f"{protocol}/epoch/{name}", float(value), int(epoch["epoch"]))
        for name, value in epoch.items()
        if name in CURVES and value is not None
    ]


def result_points(metrics: Mapping[str, Mapping[str, float | None]]) -> list[Point]:
    """Results by protocol."""
    return [(f"{protocol}/{name}", value, 0) for protocol, found in metrics.items() for name, value in found.items() if value is not None]
