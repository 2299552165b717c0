"""The model card that stands beside a registered version (Mitchell et al. 2019, Model Cards for Model Reporting).

It describes the model that is there, from the figures of its training, not from what the config would have allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightloom.config import RunConfig
from nightloom.core.asked import asked as count
from nightloom.core.asked import told
from nightloom.core.attacked import attacked
from nightloom.core.markup import plain_markdown
from nightloom.core.reason_votes import SAID, VOTES
from nightloom.core.secrets import hidden
from nightloom.packaging.card_figures import faithful, groups, popularity, quality, removed, table

COLUMNS = {"hr_at_10": "HR@10", "ndcg_at_10": "NDCG@10", "mrr_at_10": "MRR@10", "coverage_at_10": "coverage@10"}
"""Metrics in the table of models, where they were measured."""
MEMBERS = {
    "network": "causal transformer over the history",
    "graph": "which item follows which",
    "cooccurrence": "which items the same users chose",
    "linear": "what people chose, told by what else they chose",
    "text_neighbours": "items whose text is near those of the history",
    "popularity": "how many users chose an item",
    "trend": "how many users chose an item of late",
    "repeats": "how often the user chose an item before",
    "friends": "what the user's friends chose",
    "als": "taste, by a matrix factorisation; the latest events count most",
}
"""What each member of the fused score looks at."""

FAMILY = "nightloom"
"""Whose card it is, among the models that were measured."""
TINY = 1e-6
"""A fusion weight up to this is none: it is what rounding leaves of 1 less the others."""


def model_card(
    config: RunConfig,
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]],
    decision: Mapping[str, Any],
    tags: Mapping[str, str],
    *,
    training: Mapping[str, Any],
    slices: Mapping[str, Mapping[str, float]] | None = None,
    asked: Mapping[str, Any] | None = None,
    intervals: Mapping[str, Sequence[float]] | None = None,
    fairness: Sequence[Mapping[str, Any]] | None = None,
    fidelity: Sequence[Mapping[str, Any]] | None = None,
    estimator: Mapping[str, Any] | None = None,
    membership: Mapping[str, Any] | None = None,
    counts: Mapping[str, int] | None = None,
    left_out: Mapping[str, int] | None = None,
    quarantined: Mapping[str, int] | None = None,
    reason_votes: Mapping[str, Mapping[str, int]] | None = None,
    licence: str | None = None,
) -> str:
    """A model card in Markdown.

    Args:
        config: the run's configuration.
        metrics: family -> protocol -> metric.
        decision: the gate's `Decision` as a dict.
        tags: data, config, code and git hashes.
        training: figures of the registered model's training; see `nightloom.training.run.Training`.
        slices: the model's own slices -> {"users", "events", metric...}.
        asked: how much was asked, as `nightloom.evaluation.held_out.HeldOut.figures` gives it.
        intervals: metric -> [low, high], of this model.
        fairness: gaps between groups of people (`nightloom.evaluation.fairness.group_gaps`).
        fidelity: of the reasons (`nightloom.explain.fidelity.summarise`).
        estimator: how near the service's values are to long runs (`nightloom.explain.fit.quality`).
        membership: what `nightloom.evaluation.membership.measure_membership` gave.
        counts: table -> rows of the snapshot.
        left_out: reason -> events that are not in what it learned from.
        quarantined: table -> rows that the data contract set aside.
        reason_votes: kind of reason -> vote -> how often (`nightloom.core.reason_votes`).
        licence: terms of the data.
    """
    protocol = config.evaluation.protocols[0]
    measured = {family: found[protocol] for family, found in metrics.items() if protocol in found}
    shown = [name for name in COLUMNS if any(name in found for found in measured.values())]
    label = COLUMNS.get(decision["metric"], decision["metric"])
    guarded = [one for one in decision["slices"] if one["guards"]]
    parts = [
        f"# nightloom-{config.name}",
        "Ranks a catalogue for a history of item ids. Users never seen in training are answered like any other.",
        *_scored(config, training),
        "## How to load it",
        f"```python\nmodel = mlflow.pyfunc.load_model('models:/nightloom-{config.name}@champion')\n"
        "model.predict(pd.DataFrame({'history': [['item id', 'a later one']]}), params={'k': 10})\n```",
        f"## Measured ({protocol.replace('_', ' ')}, whole catalogue, {count(decision['users'], decision['queries'])})",
        table(
            ["model", *(COLUMNS[name] for name in shown)],
            [[family, *(_figure(found.get(name)) for name in shown)] for family, found in measured.items()],
        ),
        *([told(asked)] if asked else []),
        *quality(measured.get(FAMILY, {}), intervals or {}, config.promotion.confidence),
        *_sliced(f"## Slice by slice ({label})", slices or {}, decision["metric"]),
        *groups(fairness or (), label),
        *popularity(measured.get(FAMILY, {})),
        *faithful(fidelity or (), estimator),
        "## Why it was promoted" if decision["decision"] == "promote" else "## Why it was not promoted",
        "\n".join(f"- {plain_markdown(reason.replace(decision['metric'], label))}" for reason in decision["reasons"]),
        *_compared(
            f"## Against each baseline ({label}, {config.promotion.confidence:.0%} interval of the difference)", decision["baselines"]
        ),
        *_compared(f"## Against the former champion, slice by slice ({label})", guarded),
        *_voted(reason_votes or {}),
        "## What it gives away",
        _privacy(config, membership),
        "## Made from",
        "\n".join(
            [f"- {table}: {rows:,} rows" for table, rows in (counts or {}).items()]
            + ([f"- licence of the data: {plain_markdown(licence)}"] if licence else [])
            + _hashes(tags)
        ),
        "## What was removed",
        "\n".join(removed(left_out or {}, quarantined or {})),
        "## Limits",
        "- It knows what its events hold: what was never shown was never chosen, and popular items are favoured.\n"
        "- Scores rank items for one user and can not be compared between users. The columns `probability` and "
        "`label_probability`, where an answer has them, can.\n"
        "- Groups that are small in the data are served with less certainty: see the slices.",
    ]
    return hidden("\n\n".join(parts) + "\n")


def _voted(votes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What people said of the reasons of the models before; nothing where nobody did."""
    rows = [[SAID[kind], *(f"{votes[kind][vote]:,}" for vote in VOTES)] for kind in SAID if kind in votes]
    return ["## What people said of reasons so far", table(["reason", "helpful", "not helpful"], rows)] if rows else []


def _privacy(config: RunConfig, membership: Mapping[str, Any] | None) -> str:
    """How much of single people's data the version holds."""
    least = config.model.min_support
    lines = [
        f"- No edge between two items rests on fewer than {least} people."
        if least > 1
        else "- Edges between two items may rest on one person (`model.min_support` is 1): histories can be read from them.",
        "- Times of events are moved up to midnight (UTC). Ids of people are not in it.",
        f"- {attacked(membership)}" if membership else "- Whether an event was learned from was not measured: too few events, or no refit.",
    ]
    return "\n".join(lines)


def _scored(config: RunConfig, training: Mapping[str, Any]) -> list[str]:
    """What a score is made of: the members with their fusion weights, the network where it takes part, the re-ranker."""
    weights: Mapping[str, float] = training["weights"]
    network = 1 - sum(weights.values())
    fresh: Mapping[str, float] = training.get("newcomer_weights") or weights
    newcomers = {"network": 1 - sum(fresh.values()), **fresh}
    alone: Mapping[str, float] = training["validation_alone"]
    members = sorted({"network": network, **weights}.items(), key=lambda one: -one[1])
    left_out = [name for name in alone if name != "network" and name not in weights]
    rows = [
        [name.replace("_", " "), f"{weight:.1%}", f"{newcomers[name]:.1%}", _figure(alone.get(name)), MEMBERS.get(name, "")]
        for name, weight in members
        if max(weight, newcomers[name]) > TINY
    ]
    parts = [
        "## What a score is made of",
        table(["member", "fusion weight", "without a history", "validation NDCG@10 alone", "looks at"], rows),
    ]
    if max(network, newcomers["network"]) <= TINY:
        parts.append("The network has a fusion weight of 0 % and takes no part in the ranking: validation preferred the scorers alone.")
    else:
        parts.append(_network(config, training))
    if left_out:
        parts.append(f"Tried on validation and left out: {', '.join(name.replace('_', ' ') for name in left_out)}.")
    parts.append(_reranker(training.get("reranker") or {}))
    return parts


def _network(config: RunConfig, training: Mapping[str, Any]) -> str:
    """The network and how it was trained."""
    model, how = config.model, config.training
    reads = []
    if model.use_text:
        reads.append(f"text vectors of {plain_markdown(config.pretrained.model)} ({how.tuning})")
    if model.use_images and "image" in config.data.features.values():
        reads.append(f"picture vectors of {plain_markdown(config.pretrained.image_model)}")
    reads += ["attributes"] if model.use_attributes else []
    reads += ["ids"] if model.use_ids else []
    return (
        f"The network is a causal transformer: {model.blocks} blocks, width {model.dim}, the latest {model.max_history} events. "
        f"Its items are made of {', '.join(reads)}. It was trained with {how.optimizer}, learning rate {how.learning_rate:g}, "
        f"weight decay {how.weight_decay:g}, {how.batch_users} users a batch, seed {how.seed}. Epoch {training['best_epoch']} of "
        f"{training['epochs']} was the best.{' It was then trained anew on training and validation data.' if training['refitted'] else ''}"
    )


def _reranker(found: Mapping[str, Any]) -> str:
    """Whether a re-ranker orders the best candidates, and what it gained on validation."""
    if not found.get("queries"):
        return "There is no re-ranker: the fused score is the order."
    gain = f"{found['gain']:+.4f} NDCG@10 on {found['queries']:,} validation queries that it had not learnt from, "
    gain += f"standard error {found['error']:.4f}"
    if not found["kept"]:
        return f"There is no re-ranker: one was tried and its gain did not exceed its standard error twice ({gain})."
    return f"A re-ranker orders the 100 best candidates by their probability of being chosen ({gain}). Scores are its log-odds."


def _sliced(heading: str, slices: Mapping[str, Mapping[str, float]], metric: str) -> list[str]:
    """A heading and the model's own figures by slice; nothing where there are none."""
    rows = [
        [name, *(f"{found[size]:,.0f}" for size in ("users", "events")), _figure(found.get(metric))]
        for name, found in slices.items()
        if metric in found
    ]
    return [heading, table(["slice", "users", "events", "this model"], rows)] if rows else []


def _compared(heading: str, comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """A heading and a table of the gate's comparisons; nothing where there are none."""
    rows = [
        [
            one["name"],
            f"{one['users']:,}",
            f"{one['queries']:,}",
            f"{one['challenger']:.4f}",
            f"{one['other']:.4f}",
            f"{one['difference']:+.4f}",
            f"{one['low']:+.4f} to {one['high']:+.4f}",
        ]
        for one in comparisons
    ]
    return [heading, table(["", "users", "queries", "this model", "the other", "difference", "interval"], rows)] if rows else []


def click_card(name: str, decision: Mapping[str, Any], tags: Mapping[str, str], licence: str | None = None) -> str:
    """The card of a click head, in Markdown; arguments as in `model_card`, `name` with its ending."""
    parts = [
        f"# nightloom-{name}",
        "Probabilities of a click on what may be shown, p = f(W u + X_i + context), calibrated. Its counters know the log that was "
        "registered with it, to its end, and count all of it at each call. Ids and values of the log are keyed hashes; the key is not "
        "registered: it is the environment's, or lies in the mlruns folder of the machine that trained.",
        "## How to load it",
        f"```python\nmodel = mlflow.pyfunc.load_model('models:/nightloom-{name}@champion')\n"
        "model.predict(pd.DataFrame({'user_id': ['a'], 'item_id': ['b']}))['probability']\n```",
        f"## Why it was promoted ({decision['rows']:,} test rows, {decision['clicks']:,} clicks, log-loss {decision['challenger']:.4f})",
        "\n".join(f"- {plain_markdown(reason)}" for reason in decision["reasons"]),
        "## Made from",
        "\n".join(([f"- licence of the data: {plain_markdown(licence)}"] if licence else []) + _hashes(tags)),
    ]
    return "\n\n".join(parts) + "\n"


def _hashes(tags: Mapping[str, str]) -> list[str]:
    """The tags that say what a version was made from."""
    return [f"- {key.removeprefix('nightloom.')}: {value}" for key, value in tags.items()]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
