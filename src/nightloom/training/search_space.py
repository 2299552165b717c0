"""What a tuning may change: keys of the config with their ranges, in one place.

The ranges are those that pay for recommenders of this size. A config that starts outside of one widens it: the config as given
is always a point of the space, and the first one that is tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from nightloom.config import RunConfig, config_from_dict
from nightloom.core.errors import InputError

TABLES = ("events", "items", "users", "links")


@dataclass(frozen=True)
class Range:
    """A number between two, both included.

    Attributes:
        key: path in the config, for example `training.learning_rate`.
        low: smallest.
        high: largest.
        log: whether it is the ratio of two values that counts, not their difference.
    """

    key: str
    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Any) -> Any:
        """A value by Optuna's trial."""
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def around(self, config: RunConfig) -> Range:
        """The same, made to hold the config's own value."""
        own = float(value_of(config, self.key))
        return replace(self, low=min(self.low, own), high=max(self.high, own))


@dataclass(frozen=True)
class Choice:
    """One of some values.

    Attributes:
        key: path in the config.
        values: what is tried.
    """

    key: str
    values: tuple[float, ...]

    def suggest(self, trial: Any) -> Any:
        """A value by Optuna's trial."""
        return trial.suggest_categorical(self.key, self.values)

    def around(self, config: RunConfig) -> Choice:
        """The same, with the config's own value and without those that do not fit it (a width that its heads do not divide)."""
        own = value_of(config, self.key)
        return replace(self, values=tuple(one for one in sorted({*self.values, own}) if one == own or _fits(config, self.key, one)))


SPACE: tuple[Range | Choice, ...] = (
    Range("training.learning_rate", 5e-4, 1e-2, log=True),
    Range("training.lm_learning_rate", 1e-5, 3e-4, log=True),
    Choice("training.weight_decay", (0.0, 0.01, 0.05, 0.2)),
    Choice("training.batch_users", (16, 32, 64)),
    Range("training.label_smoothing", 0.0, 0.2),
    Choice("model.dim", (32, 64, 96, 128)),
    Choice("model.blocks", (1, 2, 3)),
    Range("model.dropout", 0.1, 0.6),
    Range("model.id_dropout", 0.0, 0.5),
)
"""All that is searched."""


def space_of(config: RunConfig) -> tuple[Range | Choice, ...]:
    """The part of the space that a config has a use for, made to hold the config's own values."""
    idle = set() if config.training.tuning != "frozen" else {"training.lm_learning_rate"}
    idle |= set() if config.model.use_ids else {"model.id_dropout"}
    return tuple(part.around(config) for part in SPACE if part.key not in idle)


def value_of(config: RunConfig, key: str) -> Any:
    """The config's value under a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The config with some values in place of its own.

    Args:
        config: what the values are set in.
        values: dotted key -> value.

    Raises:
        InputError: a key is unknown or a value is refused.
    """
    return config_from_dict(_set(config.model_dump(mode="json"), values))


def write_preset(path: Path, config: RunConfig, values: Mapping[str, Any], comment: str) -> None:
    """Write the config with some values as a YAML that `--config` reads back, and `--preset` once it lies among the presets.

    Only what differs from the defaults is written, and the values in any case. Tables below the file's folder are named
    relative to it.

    Args:
        path: the file; its folder is made.
        config: what was tuned.
        values: dotted key -> value found.
        comment: lines for the top of the file.
    """
    content = _set(config.model_dump(mode="json", exclude_defaults=True), values)
    for table in TABLES:
        place = content["data"].get(table)
        if place and "://" not in place and Path(place).is_relative_to(path.parent.resolve()):
            content["data"][table] = str(Path(place).relative_to(path.parent.resolve()))
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _set(content: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in values.items():
        *sections, leaf = key.split(".")
        at = content
        for section in sections:
            at = at.setdefault(section, {})
        at[leaf] = value
    return content


def _fits(config: RunConfig, key: str, value: Any) -> bool:
    try:
        with_values(config, {key: value})
    except InputError:
        return False
    return True
