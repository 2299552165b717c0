"""What every section of a run's configuration is: frozen, strict, titled for the form, and kind to old names of keys."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from nightloom.core.errors import RenamedWarning

TITLES = {
    "lm_learning_rate": "Learning rate of the language model",
    "pretrained": "Pretrained models",
    "promotion": "Gate",
    "reranker": "Re-ranker",
    "sha256": "SHA-256",
    "image_sha256": "SHA-256 of the image model",
    "validation": "Data contract",
}
"""Titles that a key's own words do not give."""


def _title(name: str, _: object) -> str:
    return TITLES.get(name, name.replace("_", " ").capitalize())


def _texts(given: Any) -> Iterator[str]:
    """All texts in a value, the keys of mappings too."""
    waiting = [given]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one


class Section(BaseModel):
    """A frozen part of the config that refuses keys it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        field_title_generator=_title,
    )
    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of the last version -> their names now; they work for one version more, with a warning."""

    @field_validator("*", mode="before")
    @classmethod
    def _writable(cls, given: Any, info: ValidationInfo) -> Any:
        """Texts that no file name and no database takes are refused where they are written, not where they are used."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(kind, type) and issubclass(kind, Section):  # which names its own key
            return given
        for text in _texts(given):
            if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
                raise ValueError("it holds a character that no file name or text may hold (NUL, or half of a surrogate pair)")
        return given

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        """A section without a key, which YAML reads as null, is one of defaults; renamed keys get their new names."""
        if given is None:
            return {}
        old = [key for key in cls.renamed if isinstance(given, Mapping) and key in given]
        if not old:
            return given
        for key in old:
            if given[key] is not None and cls.renamed[key] in given:
                raise ValueError(f"'{key}' is the old name of '{cls.renamed[key]}': give one of the two")
            said = f"config: the key '{key}' is now '{cls.renamed[key]}'. The old name goes away with the next version."
            warnings.warn(said, RenamedWarning, stacklevel=2)
        return {cls.renamed[key]: given[key] for key in old} | {key: value for key, value in given.items() if key not in old}

    def of_table(self, key: str, table: str) -> Any:
        """The value of a key for one table, where it may be given once for all tables or a table: value each."""
        value = getattr(self, key)
        return value.get(table, type(self).model_fields[key].default) if isinstance(value, Mapping) else value
