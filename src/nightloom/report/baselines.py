"""The table of models side by side: for a terminal, as Markdown, and as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from nightloom.report.words import split

COLUMNS = ("model", "HR@10", "NDCG@10", "NDCG@10 interval", "coverage@10", "fit, CPU seconds")


def rows(results: Sequence[Mapping[str, Any]], protocol: str) -> list[dict[str, str]]:
    """A row a model under one protocol, best NDCG@10 first.

    Args:
        results: what `nightloom.experiments.baselines.measure` gave for each model.
        protocol: which of its protocols.
    """
    found = []
    for result in sorted(results, key=lambda one: -one["metrics"][protocol].get("ndcg_at_10", 0.0)):
        metrics, interval = result["metrics"][protocol], result["intervals"][protocol].get("ndcg_at_10")
        span = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "no users"
        figures = [f"{metrics[name]:.4f}" if name in metrics else "" for name in ("hr_at_10", "ndcg_at_10")]
        cells = [
            result["family"],
            *figures,
            span,
            f"{metrics.get('coverage_at_10', 0.0):.3f}",
            f"{result['fit_cpu_seconds'][protocol]:.1f}",
        ]
        found.append(dict(zip(COLUMNS, cells, strict=True)))
    return found


def markdown(results: Sequence[Mapping[str, Any]], protocols: Sequence[str], confidence: float, note: str) -> str:
    """The tables of all protocols, and a note under them."""
    parts = []
    for protocol in protocols:
        asked = next(iter(results))["asked"][protocol]
        head = [
            f"## {split(protocol).capitalize()}, {asked}",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|" + "---|" * len(COLUMNS),
        ]
        parts.append("\n".join(head + ["| " + " | ".join(row.values()) + " |" for row in rows(results, protocol)]))
    said = (
        f"The whole catalogue is ranked. Interval: {confidence:.0%}, normal, over users. Every model learned from all events before the "
        "test, the validation part included. The full model and its variants chose their epoch on the validation part. "
        "CPU seconds are summed over all cores; reading the data is not counted."
    )
    return "\n\n".join(["# Models side by side", *parts, said, note]) + "\n"


def table(results: Sequence[Mapping[str, Any]], protocol: str) -> Table:
    """One protocol's table for a terminal."""
    shown = Table(title=f"Models, {split(protocol)}", title_justify="left", title_style="bold", box=None, header_style="dim")
    for number, column in enumerate(COLUMNS):
        shown.add_column(column, justify="right" if number else "left")
    for row in rows(results, protocol):
        shown.add_row(*row.values())
    return shown
