"""The sections of a config that each stage reads, as the functions of the stages take them."""

from __future__ import annotations

from typing import Any

from nightloom.config import DataConfig, RunConfig


def of_collect(config: RunConfig) -> tuple[str, DataConfig]:
    return config.name, config.data


def of_prepare(config: RunConfig) -> dict[str, Any]:
    return {"prepare": config.prepare, "evaluation": config.evaluation, "tags_separator": config.data.tags_separator}


def of_evaluate(config: RunConfig) -> dict[str, Any]:
    return {"evaluation": config.evaluation, "promotion": config.promotion, "seed": config.training.seed}


def of_explain(config: RunConfig) -> dict[str, Any]:
    evaluation = config.evaluation
    return {
        "explain": config.explain,
        "protocol": evaluation.protocols[0],
        "exclude_seen": evaluation.exclude_seen,
        "seed": config.training.seed,
    }


def of_clicks(config: RunConfig) -> dict[str, Any]:
    return {"clicks": config.clicks, "seed": config.training.seed, "confidence": config.promotion.confidence}
