"""The night's report as one JSON-ready dict: what `report.json` holds and every other form shows.

Keys that others rely on are never renamed: name, data_hash, config_hash, git, stages, metrics, gate, versions, quarantined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nightloom.core.secrets import hidden_in
from nightloom.runs.stages import Manifest, Night

Outcome = Literal["promoted", "waits", "rejected", "dry_run", "disabled", "refused", "backfill"]
Metrics = Mapping[str, Mapping[str, Mapping[str, Any]]]


def build_report(
    night: Night,
    manifests: Sequence[Manifest],
    *,
    data_hash: str | None = None,
    git: Mapping[str, Any] | None = None,
    metrics: Metrics | None = None,
    intervals: Metrics | None = None,
    slices: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]] | None = None,
    asked: Mapping[str, Mapping[str, Any]] | None = None,
    live: Mapping[str, Mapping[str, Any]] | None = None,
    fairness: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    trade_off: Mapping[str, Mapping[str, Any]] | None = None,
    newcomers: Mapping[str, Mapping[str, Any]] | None = None,
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    training: Mapping[str, Mapping[str, Any]] | None = None,
    decision: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    serves: Sequence[Mapping[str, Any]] = (),
    quarantined: Mapping[str, int] | None = None,
    quarantine_reasons: Mapping[str, Mapping[str, int]] | None = None,
    counts: Mapping[str, Any] | None = None,
    period: Sequence[str | int] | None = None,
    images: Mapping[str, Any] | None = None,
    explanations: Mapping[str, Any] | None = None,
    reason_votes: Mapping[str, Mapping[str, int]] | None = None,
    checks: Sequence[Mapping[str, Any]] | None = None,
    sample_lists: Mapping[str, Any] | None = None,
    movers: Mapping[str, Any] | None = None,
    links: Mapping[str, str | None] | None = None,
    licence: str | None = None,
    refused: tuple[str, str] | None = None,
    answer: Mapping[str, Any] | None = None,
    model: str = "nightloom",
) -> dict[str, Any]:
    """Gather what a night did.

    Args:
        night: the night.
        manifests: manifests of the stages that ran or were found done, in order.
        data_hash: content hash of the snapshot.
        git: where the code stood, for example `{"commit": ..., "dirty": bool}`.
        metrics: family -> protocol -> metric -> value.
        intervals: family (or "champion") -> protocol -> metric -> (low, high).
        slices: family -> protocol -> slice -> {"users", "events", metric...}.
        asked: protocol -> how much was asked, as `nightloom.evaluation.held_out.HeldOut.figures` gives it.
        live: protocol -> `metrics` and `intervals` of the model with scorers kept up to date (`nightloom.evaluation.live`).
        fairness: protocol -> gaps between groups of people (`nightloom.evaluation.fairness.group_gaps`).
        trade_off: protocol -> what a popularity penalty costs and gives (`nightloom.evaluation.trade_off`).
        newcomers: protocol -> lists without a history (`nightloom.evaluation.newcomers`).
        curves: protocol -> epochs of `curves.json`.
        training: protocol -> figures of its training.
        decision: the gate's `Decision` as a dict; None when the night never got there.
        versions: champion, challenger and previous version after the night; missing ones are None.
        serves: parts of tonight's version as it serves (`nightloom.compress.parts.Part`); none where none was promoted.
        quarantined: table -> rows set aside.
        quarantine_reasons: table -> reason -> rows.
        counts: what the data hold (events, items, users ...).
        period: times (ISO 8601) of the oldest and of the newest good event; their order where events have no time.
        images: figures of the catalogue's pictures, where it has any (`nightloom.encoders.load_images`).
        explanations: content of `reasons.json`.
        reason_votes: kind of reason -> vote -> how often (`nightloom.core.reason_votes`).
        checks: content of `checks.json`.
        sample_lists: content of `sample_lists.json`.
        movers: content of `movers.json`.
        links: where to look next; known keys are folder, data_docs, mlflow_run_id, mlflow_url, mlflow_runs and
            prefect_url, any other key is shown by its own name.
        licence: terms of the data, shown wherever the report is.
        refused: (stage, message) when the night stopped on refused input.
        answer: what a second person said (`nightloom.promotion.review.Answer`); None where nobody did.
        model: the family that is the challenger.

    Returns:
        JSON values only: numpy scalars are unwrapped, paths are text, and NaN or infinity is None. No text holds credentials.
    """
    config = night.config
    stages: dict[str, dict[str, Any]] = {
        made.stage: {name: getattr(made, name) for name in ("seconds", "peak_mb", "cpu_seconds", "status", "key", "folder")}
        for made in manifests
    }
    if refused:
        stages[refused[0]] = {"seconds": None, "peak_mb": None, "cpu_seconds": None, "status": "refused", "key": None, "folder": None}
    report = {
        "name": config.name,
        "night": night.night,
        "as_of": str(night.as_of) if night.as_of else None,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "outcome": _outcome("backfill" if night.as_of else config.promotion.mode, decision, refused, answer),
        "answer": dict(answer) if answer else None,
        "data_hash": data_hash,
        "config_hash": config.digest(),
        "git": git or {},
        "model": model,
        "protocols": config.evaluation.protocols,
        "gate": _gate(decision, config.promotion.metric),
        "versions": {"champion": None, "challenger": None, "previous": None} | dict(versions or {}),
        "serves": serves,
        "metrics": metrics or {},
        "intervals": intervals or {},
        "slices": slices or {},
        "asked": asked or {},
        "live": live or {},
        "fairness": fairness or {},
        "trade_off": trade_off or {},
        "newcomers": newcomers or {},
        "curves": curves or {},
        "training": training or {},
        "stages": stages,
        "counts": counts or {},
        "period": period,
        "quarantined": quarantined or {},
        "quarantine_reasons": quarantine_reasons or {},
        "images": images or {},
        "explanations": explanations or {},
        "reason_votes": reason_votes or {},
        "checks": checks or [],
        "sample_lists": sample_lists or {},
        "movers": movers or {},
        "refused": {"stage": refused[0], "message": refused[1]} if refused else None,
        "links": {"folder": str(night.folder)} | dict(links or {}),
        "licence": licence,
        "config": config.model_dump(mode="json"),
    }
    plain: dict[str, Any] = hidden_in(_plain(report))
    return plain


def _outcome(mode: str, decision: Mapping[str, Any] | None, refused: tuple[str, str] | None, answer: Mapping[str, Any] | None) -> Outcome:
    if refused:
        return "refused"
    if mode == "backfill":
        return "backfill"
    if mode == "disabled" or decision is None:
        return "disabled"
    if mode == "dry_run":
        return "dry_run"
    if decision["decision"] != "promote":
        return "rejected"
    if mode == "review" and answer is None:
        return "waits"
    return "promoted" if answer is None or answer["promoted"] else "rejected"


def _gate(decision: Mapping[str, Any] | None, metric: str) -> dict[str, Any]:
    """The decision with all its keys, even where no decision was made."""
    empty: dict[str, Any] = {"decision": None, "reasons": [], "metric": metric, "difference": None, "interval": None}
    return empty | dict(decision or {})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
