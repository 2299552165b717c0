"""The part of the config that a stage reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from nightloom.config import RunConfig, config_from_dict
from nightloom.runs.keys import TRAINING, ReadKeys, first_default


def config(**sections: object) -> RunConfig:
    return config_from_dict({"name": "mine", "data": {"events": "e.csv"}, **sections})


def test_only_what_is_read_and_not_the_default_counts() -> None:
    given = config(training={"epochs": 5, "seed": 7}, evaluation={"baselines": ["als"], "exclude_seen": False})
    read = ReadKeys(given, "training", "evaluation.exclude_seen", "data.events")
    assert read.values == {"training.epochs": 5, "evaluation.exclude_seen": False, "data.events": "e.csv"}
    assert (read.training.epochs, read.training.seed, read.evaluation.exclude_seen) == (5, 7, False)


def test_what_is_not_named_can_not_be_read() -> None:
    read = ReadKeys(config(), "evaluation.exclude_seen", "model")
    with pytest.raises(AttributeError, match=r"evaluation\.baselines: the key of this stage does not hold it"):
        _ = read.evaluation.baselines
    with pytest.raises(AttributeError, match=r"promotion: this stage reads evaluation\.exclude_seen, model of the config"):
        _ = read.promotion
    assert read.model.dim == config().model.dim


def test_what_training_reads_is_in_the_config() -> None:
    changed = {"model.scorers": list(config().model.scorers), "model.min_support": config().model.min_support}  # their defaults have
    assert ReadKeys(config(), *TRAINING).values == changed


def test_defaults_are_those_that_the_keys_came_with() -> None:
    """Where this fails for a key that is listed, its default has changed: name the old one in `keys.FIRST_DEFAULTS`, so that what was
    made with it is not taken for what the new one would make. A new key joins the list with its default."""
    listed = json.loads(Path(__file__).with_name("first_defaults.json").read_text())
    found = {
        f"{section}.{key}": first_default(section, key, one)
        for section, field in RunConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key, one in field.annotation.model_fields.items()
    }
    assert {key: value for key, value in found.items() if value is not PydanticUndefined} == listed
