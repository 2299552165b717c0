"""The keys of the config that a stage reads, and what of them goes into the stage's key.

A value that a key had when it came into being stays out, so that a key added later leaves the keys of older results as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from pydantic_core import PydanticUndefined, to_jsonable_python

from nightloom.config import RunConfig

FIRST_DEFAULTS: Mapping[str, Any] = {
    "evaluation.protocols": ["temporal"],
    "explain.max_events": 20,
    "explain.samples": 256,
    "model.min_support": 1,
    "model.scorers": ["graph", "cooccurrence", "text_neighbours", "popularity", "repeats", "friends"],
}
"""`section.key` whose default has changed -> the default that it came with (JSON): a result made with the new one has another key."""
TRAINING = (
    "model",
    "training",
    *(f"pretrained.{key}" for key in ("model", "sha256", "pooling", "max_tokens", "engine", "image_model", "image_sha256")),
    "evaluation.exclude_seen",
)
"""What training reads."""


class ReadKeys:
    """A part of the config: a stage's body that is given this can read no key that the stage's own key does not hold.

    Sections are attributes: `read.evaluation.protocols`. A whole section is the section itself.

    Args:
        config: the run's config.
        keys: `section`, or `section.key`.
    """

    def __init__(self, config: RunConfig, *keys: str) -> None:
        self.keys = keys
        self.values: dict[str, Any] = {}
        """`section.key` -> value (JSON), of all keys that have not their first default."""
        self._sections: dict[str, Any] = {}
        for key in keys:
            section, _, name = key.partition(".")
            part: Any = getattr(config, section)
            if name:
                self._sections.setdefault(section, _Part(section))
                setattr(self._sections[section], name, getattr(part, name))
            else:
                self._sections[section] = part
            fields = type(part).model_fields
            said = part.model_dump(mode="json", include={name} if name else set(fields))
            self.values |= {f"{section}.{one}": value for one, value in said.items() if value != first_default(section, one, fields[one])}

    def __getattr__(self, section: str) -> Any:
        if section.startswith("_") or section not in self._sections:
            raise AttributeError(f"{section}: this stage reads {', '.join(self.keys)} of the config; name what it reads besides")
        return self._sections[section]


class _Part(SimpleNamespace):
    """Some keys of a section."""

    def __init__(self, section: str) -> None:
        super().__init__()
        self.__dict__["_section"] = section

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(f"{self.__dict__.get('_section')}.{key}: the key of this stage does not hold it; name it among those it reads")


def first_default(section: str, key: str, field: Any) -> Any:
    """The value that stays out of stages' keys, as JSON; a sentinel that no value equals where the key has none."""
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return PydanticUndefined
    return FIRST_DEFAULTS.get(f"{section}.{key}", to_jsonable_python(default))
