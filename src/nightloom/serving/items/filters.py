"""Filters on attributes: small typed JSON, and the items that it takes.

{"and": [{"in": {"genres": ["Comedy"]}}, {"not": {"range": {"year": {"max": 1989}}}}]}
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from nightloom.serving.items.known_items import KnownItems
from nightloom.serving.refusals import Conflict

DEEPEST = 8
"""Levels of `and`, `or` and `not`."""
Value = Annotated[str, Field(max_length=512)] | bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float


class Range(BaseModel):
    """Numbers from `min` to `max`, both included."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    min: float | None = None
    max: float | None = None


def _only_one(schema: dict[str, Any]) -> None:
    """Describe what `_one` holds: a field is there, or it is not; there is no null."""
    schema["minProperties"] = schema["maxProperties"] = 1
    for said in schema["properties"].values():
        said |= said.pop("anyOf")[0]
        said.pop("default")


class Filter(BaseModel):
    """Exactly one of the five.

    `in` holds for items that have one of the values in each of the columns, `range` for those whose numbers lie in each of the ranges.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra=_only_one)
    all_of: list[Filter] | None = Field(None, alias="and", min_length=1, max_length=20)
    any_of: list[Filter] | None = Field(None, alias="or", min_length=1, max_length=20)
    none_of: Filter | None = Field(None, alias="not")
    having: dict[str, Annotated[list[Value], Field(max_length=1000)]] | None = Field(None, alias="in", min_length=1, max_length=20)
    between: dict[str, Range] | None = Field(None, alias="range", min_length=1, max_length=20)

    @model_validator(mode="before")
    @classmethod
    def _shallow(cls, said: Any) -> Any:
        if _depth(said) > DEEPEST:
            raise ValueError(f"is nested more than {DEEPEST} levels deep")
        return said

    @model_validator(mode="after")
    def _one(self) -> Filter:
        if len(self.model_fields_set) != 1 or getattr(self, next(iter(self.model_fields_set))) is None:
            raise ValueError("says exactly one of and, or, not, in, range")
        return self

    def mask(self, items: KnownItems) -> NDArray[np.bool_]:
        """The items that pass, bool [items] by dense id.

        Raises:
            Conflict: no item has a column that is named.
        """
        if self.all_of is not None:
            return np.logical_and.reduce([one.mask(items) for one in self.all_of])
        if self.any_of is not None:
            return np.logical_or.reduce([one.mask(items) for one in self.any_of])
        if self.none_of is not None:
            return ~self.none_of.mask(items)
        try:
            if self.having is not None:
                return np.logical_and.reduce([items.having(column, values) for column, values in self.having.items()])
            ranges = self.between or {}
            return np.logical_and.reduce([items.between(column, one.min, one.max) for column, one in ranges.items()])
        except KeyError as error:
            raise Conflict(f"filter: no item has a column {error.args[0]!r}. There are: {', '.join(items.columns)}.") from error


def _depth(said: Any, level: int = 0) -> int:
    """Levels of nesting, as far as it matters."""
    if level > DEEPEST or not isinstance(said, dict):
        return level
    lists = [said[name] for name in ("and", "or") if isinstance(said.get(name), list)]
    return max(_depth(one, level + 1) for one in [*(one for found in lists for one in found), said.get("not")])
