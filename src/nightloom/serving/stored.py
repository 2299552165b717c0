"""Users' stored events as the model reads them: the rules of stage prepare, without pandas.

As `nightloom.data.preparation.stored`, by which the registered model looks users up, but for one rule: an event whose name the model does
not know is left out rather than renamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightloom.core.event_names import EventNames
from nightloom.core.queries import Query
from nightloom.serving.store import Event
from nightloom.serving.withheld import busy


class Rules:
    """What counts of a user's events.

    Args:
        meta: `meta.json` of stage prepare.
        has_times: whether the events' timestamps are times.
    """

    def __init__(self, meta: Mapping[str, Any], has_times: bool) -> None:
        rules = meta.get("prepare", {})
        self.names, self.has_times = EventNames.of(meta), has_times
        self._codes = {name: code for code, name in enumerate(self.names.known)}
        self._rare = frozenset(meta.get("rare_items", ()))
        self.least: float | None = rules.get("positive_min_value")
        self.busiest_day: int | None = rules.get("max_user_events_per_day") if has_times else None
        """Different events of a day beyond which a user is taken for a robot; None: nobody is."""
        self.fewest: int = rules.get("min_user_events", 1)
        """Events below which the night leaves a user out; whoever asks is answered all the same."""
        self._keep_repeats: bool = rules.get("keep_repeats", False)

    def knows(self, name: str) -> bool:
        """Whether the model knows events of that name: any, where it learned from a table without names."""
        return self.names.any or name in self._codes

    def code(self, name: str) -> int:
        """The code of a name that the model knows."""
        return 0 if self.names.any else self._codes[name]

    def counts(self, event: Event) -> bool:
        """Whether the model knows the event's name, and its item had events enough."""
        return self.knows(event.event) and event.item_id not in self._rare

    def positive(self, event: Event) -> bool:
        """Whether an event is positive: by its name and, where the rules say so, by its value."""
        by_name = bool(self.names.positive[self.code(event.event)])
        return by_name and (self.least is None or (event.value is not None and event.value >= self.least))

    def adds(self, event: Event, earlier: Sequence[bool]) -> bool:
        """Whether an event counts beside its user's earlier ones of the item: as in `kept`, of an event that is no duplicate.

        Args:
            event: the event.
            earlier: for each of the others that counts whether it is positive.
        """
        return self._keep_repeats or not earlier or (self.positive(event) and not any(earlier))

    def kept(self, events: Sequence[Event]) -> list[Event]:
        """The events that count, oldest first: without duplicates, and of each item the first and the first positive one; none of a robot.

        Args:
            events: one user's, oldest first.
        """
        if self.busiest_day is not None and busy(events, self.busiest_day):
            return []
        found: list[Event] = []
        told: set[tuple[str, int, str]] = set()
        first: dict[str, bool] = {}
        for event in events:
            if not self.counts(event):
                continue
            key = (event.item_id, event.timestamp, event.event)
            if key in told:
                continue
            told.add(key)
            positive = self.positive(event)
            if not self._keep_repeats and event.item_id in first and (first[event.item_id] or not positive):
                continue
            first[event.item_id] = first.get(event.item_id, False) or positive
            found.append(event)
        return found

    def query(self, user: str, events: Sequence[Event]) -> Query:
        """A user's history.

        Args:
            user: the user's key.
            events: all of them, oldest first.
        """
        kept = self.kept(events)
        return Query(
            [event.item_id for event in kept],
            [event.timestamp // 1000 for event in kept] if self.has_times else None,
            [event.event for event in kept],
            [self.positive(event) for event in kept],
            user_id=user,
        )
