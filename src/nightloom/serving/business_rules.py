"""Business rules: what is pinned to a place, boosted, buried, or capped by an attribute, and when.

    rules:
      - {name: christmas, pin: ["50", "181"], at: 1, from: 2026-12-01T00:00:00Z, until: 2026-12-27T00:00:00Z}
      - {name: comedies, boost: {in: {genre: [Comedy]}}, by: 0.7}
      - {name: old stock, bury: {range: {year: {max: 1950}}}}
      - {name: variety, cap: genre, most: 3}

A rule moves items; it never brings back what a filter, a list of items, or the history leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from nightloom.core.errors import InputError
from nightloom.serving.filters import Filter
from nightloom.serving.known_items import KnownItems
from nightloom.serving.moments import Time
from nightloom.serving.refusals import Conflict

FAR = 1000.0
"""Added to the score of what is pinned, and taken from that of what is buried: more than any score."""
MORE = 4
"""How many times as many items are ranked where caps may pass some over."""
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
    """Items that stand at a place, one after the other, on whichever page that is."""

    pin: Annotated[list[ItemId], Field(min_length=1, max_length=20)]
    at: Annotated[int, Field(ge=1, le=200)] = 1


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
    most: Annotated[int, Field(ge=1, le=200)]


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


@dataclass
class Effect:
    """What a rule did to one answer.

    Attributes:
        source: whether the service's file or the request has the rule.
        matched: items of the catalogue that the rule speaks of.
        items: ids that it put into the answer, or moved within it (pin, boost), or kept out of it (bury, cap).
        problem: why it could not be applied.
    """

    rule: str
    kind: str
    source: Literal["service", "request"]
    matched: int = 0
    items: list[str] = field(default_factory=list)
    problem: str | None = None


Rank = Callable[[int, NDArray[np.float32] | None], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""The best items, so many, with an addition to each item's score."""


class Applied:
    """The rules that hold at a request.

    Args:
        service: rules of the service's file; one that names a column that is not there is passed over.
        request: rules of the request.
        items: the catalogue.
        now: milliseconds since 1970.

    Raises:
        Conflict: a rule of the request names a column that no item has, or ends before it begins.
    """

    def __init__(self, service: Sequence[AnyRule], request: Sequence[AnyRule], items: KnownItems, now: int) -> None:
        self.items = items
        self.effects: list[Effect] = []
        self._masks: list[tuple[Effect, NDArray[np.bool_]]] = []
        self._pins: dict[int, tuple[int, str, Effect]] = {}
        self._caps: list[tuple[Cap, Effect]] = []
        self._lift = np.zeros(len(items), dtype=np.float32)
        sources: tuple[tuple[Literal["service", "request"], Sequence[AnyRule]], ...] = (("service", service), ("request", request))
        for source, rules in sources:
            for number, rule in enumerate(rules):
                if rule.since is not None and rule.until is not None and rule.until <= rule.since and source == "request":
                    raise Conflict(f"rules.{number}.until: the rule ends before it begins")
                if rule.holds(now):
                    self._take(rule, Effect(rule.name, next(kind for kind in KINDS if hasattr(rule, kind)), source))

    def __bool__(self) -> bool:
        return bool(self.effects)

    def _take(self, rule: AnyRule, effect: Effect) -> None:
        try:
            if isinstance(rule, Boost | Bury):
                mask = (rule.boost if isinstance(rule, Boost) else rule.bury).mask(self.items)
                self._lift[mask] += rule.by if isinstance(rule, Boost) else -FAR
                effect.matched = int(np.count_nonzero(mask))
                self._masks.append((effect, mask))
            elif isinstance(rule, Cap):
                if not self.items.has(rule.cap):
                    raise Conflict(f"rules: no item has a column {rule.cap!r}. There are: {', '.join(self.items.columns)}.")
                self._caps.append((rule, effect))
                effect.matched = len(self.items)
            else:
                places = [place for item in rule.pin if (place := self.items.place(item)) is not None]
                effect.matched = len(places)
                for number, place in enumerate(places):
                    self._pins.setdefault(place, (rule.at + number, rule.name, effect))
        except Conflict as error:
            if effect.source == "request":
                raise
            effect.problem = str(error)
        self.effects.append(effect)

    def rank(self, rank: Rank, k: int, shown: int) -> tuple[list[int], list[float], dict[int, str]]:
        """The answer by the rules.

        Args:
            rank: ranks items.
            k: how many are wanted.
            shown: how many earlier pages have shown.

        Returns:
            Dense items; their scores, as they are without the rules; and of those that are pinned the name of the rule.
        """
        lift = self._lift.copy()
        for place in self._pins:
            lift[place] = 2 * FAR
        wanted = k + len(self._pins)
        if self._caps:
            wanted = max(wanted * MORE, 100)
        while True:
            dense, scores = rank(wanted, lift)
            found = self._placed(dense.tolist(), k, shown)
            if len(found) == k or len(dense) < wanted or not self._caps:
                break
            wanted *= MORE
        score = dict(zip(dense.tolist(), (scores - lift[dense]).tolist(), strict=True))
        return found, [score[place] for place in found], {place: self._pins[place][1] for place in found if place in self._pins}

    def _placed(self, ranked: Sequence[int], k: int, shown: int) -> list[int]:
        """The first k: pinned ones at their places, of the others as many as the caps allow."""
        pinned: dict[int, int] = {}
        for place in ranked:
            if place in self._pins:
                at = self._pins[place][0] - shown - 1
                while at in pinned:  # two rules name the same place: one after the other
                    at += 1
                pinned[at] = place
        used = [Counter[Any]() for _ in self._caps]
        others, found = iter([place for place in ranked if place not in self._pins]), list[int]()
        for _, effect in self._caps:
            effect.items.clear()
        while len(found) < k:
            place = pinned.pop(len(found), None)
            if place is None:
                place = next((one for one in others if self._free(one, used)), None)
            if place is None:
                later = min((one for one in pinned if len(found) < one < k), default=None)
                if later is None:
                    break
                place = pinned.pop(later)  # the list is shorter than the place
            for (cap, _), counts in zip(self._caps, used, strict=True):
                counts.update(self.items.values(place, cap.cap))
            found.append(place)
        return found

    def _free(self, place: int, used: Sequence[Counter[Any]]) -> bool:
        for (cap, effect), counts in zip(self._caps, used, strict=True):
            if any(counts[value] >= cap.most for value in self.items.values(place, cap.cap)):
                effect.items.append(self.items.ids[place])
                return False
        return True

    def explained(self, found: Sequence[int], without: Sequence[int]) -> list[dict[str, Any]]:
        """What each rule did.

        Args:
            found: the answer.
            without: what the answer is without rules.
        """
        ids = self.items.ids
        for effect, mask in self._masks:
            kept = without if effect.kind == "bury" else found
            effect.items = [ids[place] for place in kept if mask[place] and (effect.kind == "boost" or place not in found)]
        for place in found:
            if place in self._pins:
                self._pins[place][2].items.append(ids[place])
        return [{name: value for name, value in vars(effect).items() if value is not None} for effect in self.effects]
