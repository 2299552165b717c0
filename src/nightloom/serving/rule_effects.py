"""Business rules at work: one answer, and what each rule did to it.

A rule moves items; it never brings back what a filter, a list of items, or the history leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nightloom.serving.business_rules import KINDS, AnyRule, Boost, Bury, Cap, Pin
from nightloom.serving.items.known_items import KnownItems
from nightloom.serving.refusals import Conflict

FAR = 1000.0
"""Added to the score of what is pinned, and taken from that of what is buried: more than any score."""
MORE = 4
"""How many times as many items are ranked where caps may pass some over."""


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
        self._pins: list[tuple[Pin, Effect, list[int]]] = []
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
                self._pins.append((rule, effect, places))
        except Conflict as error:
            if effect.source == "request":
                raise
            effect.problem = str(error)
        self.effects.append(effect)

    def rank(self, rank: Rank, k: int, before: Sequence[int]) -> tuple[list[int], list[float], dict[int, str]]:
        """The answer by the rules.

        Args:
            rank: ranks items.
            k: how many are wanted.
            before: marks of the items that earlier pages have shown.

        Returns:
            Dense items; their scores, as they are without the rules; and of those that are pinned the name of the rule.
        """
        lift = self._lift.copy()
        pinned = [place for _, _, places in self._pins for place in places]
        lift[pinned] = 2 * FAR
        wanted = k + len(pinned)
        if self._caps:
            wanted = max(wanted * MORE, 100)
        while True:
            dense, scores = rank(wanted, lift)
            found, names = self._placed(dense.tolist(), k, before)
            if len(found) == k or len(dense) < wanted or not self._caps:
                break
            wanted *= MORE
        score = dict(zip(dense.tolist(), (scores - lift[dense]).tolist(), strict=True))
        return found, [score[place] for place in found], names

    def _pinned(self, ranked: Sequence[int], before: Sequence[int]) -> dict[int, tuple[int, Pin, Effect]]:
        """Place on this page -> the item that is pinned to it, the first rule's where two name the same place."""
        there, shown = set(ranked), set(before)
        found: dict[int, tuple[int, Pin, Effect]] = {}
        for rule, effect, places in self._pins:
            at = rule.at - 1 - len(before)
            for place in places:
                if place in there:
                    while at in found:
                        at += 1
                    found[at] = (place, rule, effect)
                    there.remove(place)
                elif int(self.items.marks[place]) not in shown:
                    continue
                at += 1
        return found

    def _placed(self, ranked: Sequence[int], k: int, before: Sequence[int]) -> tuple[list[int], dict[int, str]]:
        """The first k: pinned ones at their places, of the others as many as the caps allow; and the names of the pinned ones' rules."""
        pinned = self._pinned(ranked, before)
        names: dict[int, str] = {}
        for _, effect, _ in self._pins:
            effect.items.clear()
        every = {place for _, _, places in self._pins for place in places}
        used = [Counter[Any]() for _ in self._caps]
        others, found = iter([place for place in ranked if place not in every]), list[int]()
        for _, effect in self._caps:
            effect.items.clear()
        while len(found) < k:
            pin = pinned.pop(len(found), None)
            place = next((one for one in others if self._free(one, used)), None) if pin is None else pin[0]
            if place is None:
                later = min((one for one in pinned if len(found) < one < k), default=None)
                if later is None:
                    break
                pin = pinned.pop(later)  # the list is shorter than the place
                place = pin[0]
            if pin is not None:
                names[place] = pin[1].name
                pin[2].items.append(self.items.ids[place])
            for (cap, _), counts in zip(self._caps, used, strict=True):
                counts.update(self.items.values(place, cap.cap))
            found.append(place)
        return found, names

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
        return [{name: value for name, value in vars(effect).items() if value is not None} for effect in self.effects]
