"""The model card that stands beside a registered version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nightloom.config import RunConfig


def model_card(
    config: RunConfig, metrics: Mapping[str, Mapping[str, Mapping[str, float]]], decision: Mapping[str, Any], tags: Mapping[str, str]
) -> str:
    """A model card in Markdown.

    Args:
        config: the run's configuration.
        metrics: family -> protocol -> metric.
        decision: the gate's decision as a dict.
        tags: data, config, code and git hashes.
    """
    protocol = config.evaluation.protocols[0]
    rows = [
        f"| {family} | {found[protocol]['hr_at_10']:.4f} | {found[protocol]['ndcg_at_10']:.4f} | {found[protocol]['mrr_at_10']:.4f} |"
        for family, found in metrics.items()
        if protocol in found
    ]
    return "\n".join(
        [
            f"# {config.name}",
            "",
            "Ranks a catalogue for a history of item ids; users never seen in training are answered alike.",
            f"Text by {config.pretrained.model} ({config.training.tuning}), a causal transformer over the history, a transition graph.",
            "",
            f"## Measured ({protocol}, whole catalogue, held-out users)",
            "",
            "| family | HR@10 | NDCG@10 | MRR@10 |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Why it was promoted",
            "",
            *(f"- {reason}" for reason in decision["reasons"]),
            "",
            "## Made from",
            "",
            *(f"- {key.removeprefix('nightloom.')}: {value}" for key, value in tags.items()),
            "",
            "## Limits",
            "",
            "It knows what is in its events: what was never shown was never chosen. Scores rank items; they are no probabilities.",
        ]
    )
