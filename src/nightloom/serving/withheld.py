"""Events that are stored and not learned from: of robots, and of items that nobody has described yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from nightloom.serving.store import Event

MOST_COUNTED = 100_000
"""Users whose events are counted at a time; those of one who was let go are counted anew from the store."""
MOST_AWAITED = 100_000
"""Events that wait for their items; of more the oldest are let go, and wait for the next night."""
DAY = 86_400_000


def busy(events: Sequence[Event], limit: int) -> bool:
    """Whether one user's events have a day (UTC) of more than `limit` different ones, by which the night takes users for robots."""
    if len(events) <= limit:
        return False
    days: dict[int, set[tuple[str, int, str]]] = {}
    for event in events:
        days.setdefault(event.timestamp // DAY, set()).add((event.item_id, event.timestamp, event.event))
    return any(len(found) > limit for found in days.values())


class Robots:
    """Which users have shown themselves as robots, as far as their events were told.

    Args:
        limit: `prepare.max_user_events_per_day`; None where events have no times, so nobody is one.
        history: all events of a user that were told before.
    """

    def __init__(self, limit: int | None, history: Callable[[str], Sequence[Event]]) -> None:
        self.limit, self._history = limit, history
        self._users: set[str] = set()
        self._days: OrderedDict[str, dict[int, int]] = OrderedDict()

    def __contains__(self, user: str) -> bool:
        return user in self._users

    def tell(self, event: Event) -> bool:
        """Count an event; whether its user is a robot from now on. The store is read at a user's first event of a day, and on suspicion."""
        user, day = event.user_id, event.timestamp // DAY
        if self.limit is None or user in self._users:
            return False
        days = self._days.pop(user, {})
        many = days.get(day)
        if many is None or many >= self.limit:
            events = [*self._history(user), event]
            if busy(events, self.limit):
                self._users.add(user)
                return True
            many = sum(one.timestamp // DAY == day for one in events) - 1
        self._days[user] = days | {day: many + 1}
        if len(self._days) > MOST_COUNTED:
            self._days.popitem(last=False)
        return False

    def forget(self, user: str) -> None:
        """Think no more of a user, one of whose events is gone."""
        self._users.discard(user)
        self._days.pop(user, None)


class Awaited:
    """Events that came before their items; they are learned from when the item comes."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, Event] = OrderedDict()
        self._items: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._events)

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._events

    def add(self, event: Event) -> None:
        """Take an event, in the order in which events were told."""
        self._events[event.event_id] = event
        self._items.setdefault(event.item_id, []).append(event.event_id)
        if len(self._events) > MOST_AWAITED:
            self.discard(next(iter(self._events)))

    def of(self, item_id: str) -> list[Event]:
        """The events that wait for an item, in the order in which they were told."""
        return [self._events[one] for one in self._items.get(item_id, ())]

    def of_user(self, user: str) -> list[Event]:
        """A user's events."""
        return [one for one in self._events.values() if one.user_id == user]

    def discard(self, event_id: str) -> None:
        """Wait with an event no longer."""
        event = self._events.pop(event_id, None)
        if event is not None:
            left = self._items[event.item_id]
            left.remove(event_id)
            if not left:
                del self._items[event.item_id]
