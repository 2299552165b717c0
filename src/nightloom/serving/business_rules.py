"""Business rules: what is pinned to a place, boosted, buried, or capped by an attribute, and when.

    rules:
      - {name: christmas, pin: ["50", "181"], at: 1, from: 2026-12-01T00:00:00Z, until: 2026-12-27T00:00:00Z}
      - {name: comedies, boost: {in: {genre: [Comedy]}}, by: 0.7}
      - {name: old stock, bury: {range: {year: {max: 1950}}}}
      - {name: variety, cap: genre, most: 3}

How they are applied is in `rule_effects`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from nightloom.core.errors import InputError
from nightloom.serving.items.filters import Filter
from nightloom.serving.model.moments import WHOLE, Time

ItemId = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Scheduled(BaseModel):
    """What every rule has."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    name: Annotated[str, Field(min_length=1, max_length=100)]
    since: Time | None = Field(None, alias="from")
    """Holds from then on."""
    until: Time | None = None
    """Holds before."""

    def holds(self, now: int) -> bool:
        """Whether the rule holds at a time, milliseconds since 1970."""
        return (self.since is None or self.since <= now) and (self.until is None or now < self.until)


class Pin(_Scheduled):
    """Items that stand at a place, one after the other, on whichever page that is; the next one moves up where one is left out."""

    pin: Annotated[list[ItemId], Field(min_length=1, max_length=20)]
    at: Annotated[int, Field(ge=1, le=200), WHOLE] = 1


class Boost(_Scheduled):
    """Items whose score is higher by a number, or lower. Where the model has a re-ranker, 0.7 doubles the odds."""

    boost: Filter
    by: Annotated[float, Field(ge=-100, le=100)]


class Bury(_Scheduled):
    """Items that come after all others."""

    bury: Filter


class Cap(_Scheduled):
    """At most so many items of an answer have the same value in a column."""

    cap: ItemId
    most: Annotated[int, Field(ge=1, le=200), WHOLE]


KINDS = ("pin", "boost", "bury", "cap")


def _kind(said: Any) -> str | None:
    """Which kind of rule is meant; None where none is, or several are."""
    found = [name for name in KINDS if (name in said if isinstance(said, dict) else hasattr(said, name))]
    return found[0] if len(found) == 1 else None


Rule = Annotated[
    Annotated[Pin, Tag("pin")] | Annotated[Boost, Tag("boost")] | Annotated[Bury, Tag("bury")] | Annotated[Cap, Tag("cap")],
    Discriminator(_kind, custom_error_type="rule", custom_error_message="says exactly one of pin, boost, bury, cap"),
]
AnyRule = Pin | Boost | Bury | Cap


class RuleFile(BaseModel):
    """A file of rules."""

    model_config = ConfigDict(strict=True, extra="forbid")
    rules: Annotated[list[Rule], Field(max_length=200)] = []


def read_rules(path: Path) -> list[AnyRule]:
    """The rules of a YAML file.

    Raises:
        InputError: it is not there, or names the field that is wrong.
    """
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        return list(RuleFile.model_validate(_as_json(said or {})).rules)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: the business rules can not be read: {error}") from error
    except ValidationError as error:
        faults = [f"{'.'.join(str(one) for one in fault['loc'])}: {fault['msg']}" for fault in error.errors()[:5]]
        raise InputError(f"{path}: {'; '.join(faults)}") from error


class RuleBook:
    """A file of rules that may change.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[int, int] | None = None

    def changed(self) -> list[AnyRule] | None:
        """The rules, where the file is another one than at the last call; None where it is not.

        Raises:
            InputError: it is broken, or gone; said once.
        """
        try:
            found = self.path.stat()
            now = (found.st_mtime_ns, found.st_size)
        except OSError:
            now = (0, 0)
        if now == self._read:
            return None
        self._read = now
        return read_rules(self.path)


def _as_json(said: Any) -> Any:
    """YAML's own times as text."""
    if isinstance(said, dict):
        return {name: _as_json(one) for name, one in said.items()}
    if isinstance(said, list):
        return [_as_json(one) for one in said]
    return said.isoformat() if isinstance(said, datetime) else said
