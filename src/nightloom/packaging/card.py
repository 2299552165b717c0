"""The model card that stands beside a registered version (Mitchell et al. 2019, Model Cards for Model Reporting)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightloom.config import RunConfig

COLUMNS = {"hr_at_10": "HR@10", "ndcg_at_10": "NDCG@10", "mrr_at_10": "MRR@10", "coverage_at_10": "coverage@10"}
"""Metrics in the table of families, where they were measured."""


def model_card(
    config: RunConfig,
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]],
    decision: Mapping[str, Any],
    tags: Mapping[str, str],
    *,
    counts: Mapping[str, int] | None = None,
    licence: str | None = None,
) -> str:
    """A model card in Markdown.

    Args:
        config: the run's configuration.
        metrics: family -> protocol -> metric.
        decision: the gate's `Decision` as a dict.
        tags: data, config, code and git hashes.
        counts: table -> rows of the snapshot.
        licence: terms of the data.
    """
    protocol, training = config.evaluation.protocols[0], config.training
    pictures = _seen_by(config.pretrained.image_model, config.data.features, config.model.use_images)
    measured = {family: found[protocol] for family, found in metrics.items() if protocol in found}
    shown = [name for name in COLUMNS if any(name in found for found in measured.values())]
    label = COLUMNS.get(decision["metric"], decision["metric"])
    slices = [one for one in decision["slices"] if one["guards"]]
    parts = [
        f"# nightloom-{config.name}",
        "Ranks a catalogue for a history of item ids. Users never seen in training are answered like any other.",
        f"Text is read by {config.pretrained.model} ({training.tuning}){pictures}; a causal transformer over the history, "
        f"fused with scorers that need no training, scores every item. Blocks: {config.model.blocks}, "
        f"width: {config.model.dim}, events read: {config.model.max_history}.",
        "## How to load it",
        f"```python\nmodel = mlflow.pyfunc.load_model('models:/nightloom-{config.name}@champion')\n"
        "model.predict(pd.DataFrame({'history': [['item id', 'a later one']]}), params={'k': 10})\n```",
        f"## Measured ({protocol.replace('_', ' ')}, whole catalogue, {decision['users']:,} held-out users)",
        _table(
            ["family", *(COLUMNS[name] for name in shown)],
            [[family, *(f"{found[name]:.4f}" if name in found else "" for name in shown)] for family, found in measured.items()],
        ),
        "## Why it was promoted",
        "\n".join(f"- {reason}" for reason in decision["reasons"]),
        *_compared(
            f"## Against each baseline ({label}, {config.promotion.confidence:.0%} interval of the difference)", decision["baselines"]
        ),
        *_compared(f"## Against the former champion, slice by slice ({label})", slices),
        "## Made from",
        "\n".join(
            [f"- {table}: {rows:,} rows" for table, rows in (counts or {}).items()]
            + ([f"- licence of the data: {licence}"] if licence else [])
            + [f"- {key.removeprefix('nightloom.')}: {value}" for key, value in tags.items()]
        ),
        f"Trained with {training.optimizer}, learning rate {training.learning_rate:g}, weight decay {training.weight_decay:g}, "
        f"{training.batch_users} users a batch, at most {training.epochs} epochs, seed {training.seed}.",
        "## Limits",
        "It knows what its events hold: what was never shown was never chosen, and popular items are favoured. Scores rank items for "
        "one user; they can not be compared between users (the columns `probability` and `label_probability`, where the "
        "answer has them, are, and can). Whoever is small in the data is served less surely: see the slices.",
    ]
    return "\n\n".join(parts) + "\n"


def _seen_by(image_model: str, features: Mapping[str, str], used: bool) -> str:
    """Who sees the pictures, where there are any and they count."""
    return f", pictures are seen by {image_model}" if used and "image" in features.values() else ""


def _compared(heading: str, comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """A heading and a table of the gate's comparisons; nothing where there are none."""
    rows = [
        [
            one["name"],
            f"{one['users']:,}",
            f"{one['challenger']:.4f}",
            f"{one['other']:.4f}",
            f"{one['difference']:+.4f}",
            f"{one['low']:+.4f} to {one['high']:+.4f}",
        ]
        for one in comparisons
    ]
    return [heading, _table(["", "users", "this model", "the other", "difference", "interval"], rows)] if rows else []


def click_card(name: str, decision: Mapping[str, Any], tags: Mapping[str, str], licence: str | None = None) -> str:
    """The card of a click head, in Markdown; arguments as in `model_card`, `name` with its ending."""
    parts = [
        f"# nightloom-{name}",
        "Probabilities of a click on what may be shown, p = f(W u + X_i + context), calibrated. Its counters know the log that was "
        "registered with it, to its end, and count all of it at each call.",
        "## How to load it",
        f"```python\nmodel = mlflow.pyfunc.load_model('models:/nightloom-{name}@champion')\n"
        "model.predict(pd.DataFrame({'user_id': ['a'], 'item_id': ['b']}))['probability']\n```",
        f"## Why it was promoted ({decision['rows']:,} test rows, {decision['clicks']:,} clicks, log-loss {decision['challenger']:.4f})",
        "\n".join(f"- {reason}" for reason in decision["reasons"]),
        "## Made from",
        "\n".join(
            ([f"- licence of the data: {licence}"] if licence else [])
            + [f"- {key.removeprefix('nightloom.')}: {value}" for key, value in tags.items()]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
