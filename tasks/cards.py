"""The cards of a night's model and data, out of what its stages measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nightloom.core.secrets import hidden_in
from nightloom.evaluation.held_out import ASKED
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.card import model_card
from nightloom.packaging.data_card import data_card
from nightloom.runs.stages import Manifest, Night

MODEL, DATA = "model_card.md", "data_card.md"


def card_of_model(
    night: Night,
    decision: Mapping[str, Any],
    tags: Mapping[str, str],
    *,
    collected: Manifest,
    tuned: Manifest,
    evaluated: Manifest,
    explained: Manifest,
) -> str:
    """The card of tonight's model."""
    protocol, family = night.config.evaluation.protocols[0], SequentialRecommender.family
    slices, intervals = (json.loads((evaluated.path / f"{name}.json").read_text(encoding="utf-8")) for name in ("slices", "intervals"))
    prepared, checked = (_stage(night, name).figures for name in ("prepare", "validate"))
    return model_card(
        night.config,
        evaluated.figures["metrics"],
        decision,
        tags,
        training=tuned.figures[protocol],
        slices=slices.get(family, {}).get(protocol),
        asked={name: evaluated.figures[name][protocol] for name in ASKED},
        intervals=intervals.get(family, {}).get(protocol),
        fairness=evaluated.figures["fairness"].get(protocol),
        fidelity=explained.figures["fidelity"],
        estimator=explained.figures["estimator"],
        membership=evaluated.figures["membership"].get(protocol),
        counts=collected.figures["counts"],
        left_out={**collected.figures["left_out"], **prepared["removed"]},
        quarantined=checked["quarantined"],
        reason_votes=collected.figures["reason_votes"],
        licence=collected.figures["licence"],
    )


def card_of_data(night: Night, collected: Manifest) -> str:
    """The card of tonight's data."""
    prepared, checked = (_stage(night, name).figures for name in ("prepare", "validate"))
    return data_card(
        night.config,
        data_hash=collected.figures["hash"],
        counts=collected.figures["counts"],
        period=(checked["oldest"], checked["newest"]),
        features=collected.figures["features"],
        prepared=prepared,
        left_out=collected.figures["left_out"],
        quarantined=checked["quarantined"],
        rules=checked["rules"],
        notes=hidden_in(collected.figures["notes"]),
        licence=collected.figures["licence"],
    )


def _stage(night: Night, name: str) -> Manifest:
    return Manifest.load(night.folder / "manifests" / f"{name}.json")
