"""What the model is made of, in words: fusion weights, the start of its training, its two calibrated heads, what it gives away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nightloom.core.attacked import attacked
from nightloom.core.reason_votes import SAID
from nightloom.report.words import spoken

MOVED_BY = 2
"""Parts of the score that are named for an item that moved, the largest."""


def fusion_weights(training: Mapping[str, Any]) -> list[tuple[str, float, float, float]]:
    """(part of the score, its fusion weight, that without a history, validation NDCG@10 of it alone), the largest weight first.

    Args:
        training: figures of one protocol's training.
    """
    weights, alone = training["weights"], training["validation_alone"]
    parts, newcomers = ({"network": 1 - sum(one.values())} | one for one in (weights, training.get("newcomer_weights") or weights))
    found = ((spoken(name), parts.get(name, 0.0), newcomers.get(name, 0.0), value) for name, value in alone.items())
    return sorted(found, key=lambda one: -one[1])


def started(training: Mapping[str, Any]) -> str:
    """The weights that the network's training started from, in a sentence."""
    if training.get("warm_start"):
        return "The network's training continued from the champion's weights."
    reason = training.get("cold_because")
    return "The network was trained from scratch" + (f": {reason}." if reason else ".")


def reranked(training: Mapping[str, Any]) -> str:
    """What the re-ranker does and how well its probabilities are calibrated; empty where none was fitted."""
    found, probabilities = training.get("reranker"), training.get("probabilities")
    if not found or not found["queries"]:
        return ""
    change = (
        f"{found['gain']:+.4f} NDCG@10 with a standard error of {found['error']:.4f}, on {found['queries']:,} validation queries "
        "that it was not fitted on"
    )
    if not found["kept"]:
        return f"A re-ranker was fitted and left out, since its gain does not exceed two standard errors ({change})."
    said = f"The re-ranker orders the best candidates by the probability that the user interacts with them ({change}). Scores are log-odds."
    if probabilities:
        said += (
            f" On {probabilities['rows']:,.0f} test candidates its probabilities have AUC {probabilities['auc']:.3f}, log-loss "
            f"{probabilities['log_loss']:.4f} and calibration error {probabilities['ece']:.4f}; "
            f"{100 * probabilities['positive']:.1f} % of the candidates were held-out items."
        )
    return said


def penalised(training: Mapping[str, Any]) -> str:
    """What the popularity penalty takes off, and what it cost on validation; empty without one."""
    found = training.get("popularity_penalty")
    if not found or not found["strength"]:
        return ""
    said = f"A popularity penalty of {found['strength']:g} for each standard deviation of log popularity is taken off the score"
    if found["loss"] is None:
        return f"{said}, as the config says."
    cost = f"{100 * found['loss']:.1f} % of NDCG@10 (standard error {100 * found['error']:.1f}) on {found['queries']:,} validation queries"
    return f"{said}: the most that was allowed, {cost}."


def labelled(training: Mapping[str, Any]) -> str:
    """How well the label head's probabilities are calibrated, in a sentence; empty where there is no such head."""
    probabilities = training.get("label_probabilities")
    if not probabilities:
        return ""
    return (
        f"The label head gives the probability that an event is positive: on {probabilities['rows']:,.0f} test events, "
        f"{100 * probabilities['positive']:.1f} % of them positive, AUC {probabilities['auc']:.3f}, "
        f"log-loss {probabilities['log_loss']:.4f}, "
        f"calibration error {probabilities['ece']:.4f}."
    )


def given_away(training: Mapping[str, Any]) -> str:
    """How well an attack tells whether an event was learned from; empty where that was not measured."""
    found = training.get("membership")
    return attacked(found) if found else ""


def votes(report: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """(kind of reason in words, votes that it is helpful, votes that it is not)."""
    found: Mapping[str, Mapping[str, int]] = report.get("reason_votes") or {}
    return [(said, found[kind]["helpful"], found[kind]["not_helpful"]) for kind, said in SAID.items() if kind in found]


def movers(report: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(heading, items) of what rises and of what falls; each says by which parts of the score."""
    found: Mapping[str, Any] = report.get("movers") or {}
    lists = [("Rises", found.get("rises", [])), ("Falls", found.get("falls", []))]
    return [(heading, [{**one, "why": _why(one["parts"])} for one in rows]) for heading, rows in lists if rows]


def _why(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{spoken(name)} {value:+.2f}" for name, value in list(parts.items())[:MOVED_BY])
