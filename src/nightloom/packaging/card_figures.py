"""Parts of the model card that are figures of the night: quality with intervals, groups of people, popularity, and how true reasons are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightloom.core.markup import plain_markdown

QUALITY = {
    "hr_at_10": "HR@10",
    "ndcg_at_10": "NDCG@10",
    "mrr_at_10": "MRR@10",
    "recall_at_10": "recall@10",
    "hr_at_20": "HR@20",
    "ndcg_at_20": "NDCG@20",
}
POPULARITY = {
    "arp_at_10": "average popularity of what is shown, in events (ARP@10)",
    "aplt_at_10": "share of a list that is of the tail (APLT@10)",
    "mid_exposure_at_10": "exposure of mid items",
    "tail_exposure_at_10": "exposure of tail items",
    "tail_items_at_10": "distinct tail items that are shown",
    "coverage_at_10": "share of the catalogue that is shown",
    "gini_at_10": "Gini index of how often items are shown; 0 is all alike",
    "miscalibration_at_10": "divergence from the histories' shares of categories; 0 is none",
}
FIDELITY = {"pos_at_5": "POS@5", "cdcg": "CDCG", "deletion": "DEL", "insertion": "INS"}


def quality(metrics: Mapping[str, float], intervals: Mapping[str, Sequence[float]], confidence: float) -> list[str]:
    """This model's ranking metrics with their intervals."""
    rows = [
        [label, f"{metrics[name]:.4f}", f"{intervals[name][0]:.4f} to {intervals[name][1]:.4f}"]
        for name, label in QUALITY.items()
        if name in metrics and name in intervals
    ]
    return [f"## Quality, with {confidence:.0%} intervals", table(["metric", "this model", "interval"], rows)] if rows else []


def groups(gaps: Sequence[Mapping[str, Any]], label: str) -> list[str]:
    """How well groups of people are served: of each attribute the best and the worst one, and the gap with its interval."""
    rows = [
        [
            str(one["attribute"]),
            *(f"{found['name']}: {found['value']:.4f} ({found['users']:,} users)" for found in _ends(one)),
            f"{one['gap']:.4f} ({one['low']:+.4f} to {one['high']:+.4f})",
        ]
        for one in gaps
    ]
    return [f"## Groups of people ({label})", table(["by", "served best", "served worst", "gap, with its interval"], rows)] if rows else []


def _ends(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    by_name = {found["name"]: found for found in one["groups"]}
    return [by_name[one["best"]], by_name[one["worst"]]]


def popularity(metrics: Mapping[str, float]) -> list[str]:
    """What lists show of popular and of rare items."""
    rows = [
        [label, f"{metrics[name]:,.0f}" if name == "tail_items_at_10" else f"{metrics[name]:.4f}"]
        for name, label in POPULARITY.items()
        if metrics.get(name) is not None
    ]
    return ["## Popular and rare items", table(["of the first ten", "this model"], rows)] if rows else []


def faithful(fidelity: Sequence[Mapping[str, Any]], estimator: Mapping[str, Any] | None) -> list[str]:
    """Whether the reasons hold: what happens to recommendations without the events that count most."""
    rows = [[f"{row['removed']}", f"{row['users']:,}", *(f"{row[name]:.3f}" for name in FIDELITY)] for row in fidelity]
    if not rows:
        return []
    said = "Without the events that reasons say count most: still among the first five (POS@5, less is better), and the published measures."
    if estimator and "relative_rmse" in estimator:
        said += (
            f" The service's quick values are {estimator['relative_rmse']:.2f} from long runs (relative RMSE), and name the same first "
            f"event in {estimator['top_1']:.0%} of the histories."
        )
    return ["## Whether its reasons are true", said, table(["events removed", "users", *FIDELITY.values()], rows)]


def removed(counts: Mapping[str, int], quarantined: Mapping[str, int]) -> list[str]:
    """What is not in the data that the model learned from, and why; one line each."""
    lines = [f"- {many:,} events left out: {plain_markdown(reason)}" for reason, many in counts.items() if many]
    lines += [f"- {many:,} rows of {plain_markdown(name)} set aside by the data contract" for name, many in quarantined.items() if many]
    return lines or ["- nothing was left out"]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; what stands in it is text."""
    lines = [list(map(plain_markdown, line)) for line in (heads, *rows)]
    lines.insert(1, ["---"] * len(heads))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
