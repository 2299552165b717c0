"""One request for recommendations, and how some of them become the packed histories that a model reads.

The registered pyfunc, the command line and the service all build histories here, so that they answer alike. Needs numpy alone.
(`Queries` of `nightloom.core.sequences` is what evaluation takes: packed histories with their held-out items.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.core.sequences import Histories, Links


@dataclass(frozen=True)
class Query:
    """A history, and what is known of the request.

    Attributes:
        history: item ids, oldest first; ids that the catalogue lacks are skipped.
        times: when each event happened, seconds since 1970; None where that is not known, and the model answers from order alone.
        event_types: the event name of each event; None: each has the model's default event type.
        positive: whether each event was positive (liked, bought); None: the event names decide.
        friends: histories, item ids oldest first, of the users that this one is linked to.
        request_time: seconds since 1970; None: the time of the latest event. It counts only where the times of the events are known.
        user_id: whose history it is, where that is known.
    """

    history: Sequence[str] = ()
    times: Sequence[int] | None = None
    event_types: Sequence[str] | None = None
    positive: Sequence[bool] | None = None
    friends: Sequence[Sequence[str]] = ()
    request_time: int | None = None
    user_id: str | None = None

    @property
    def known_time(self) -> int:
        """The time of the request as models read it, in seconds since 1970; 0 where the times of its events are not known."""
        if self.times is None and len(self.history):
            return 0
        if self.request_time is not None:
            return int(self.request_time)
        return 0 if self.times is None else int(max(self.times, default=0))


def build_histories(queries: Sequence[Query], index: Mapping[str, int], names: EventNames) -> Histories:
    """The histories of some queries as a model reads them.

    Args:
        queries: one for each history to be made.
        index: dense item id by item id; events of other items are left out.
        names: the event names that the model knows.

    Returns:
        `len(queries)` histories, with links where a query has friends.

    Raises:
        InputError: a list of a query does not match its history, or the model does not know an event name.
    """
    for number, query in enumerate(queries):
        _check(number, query)
    kept = [[place for place, item in enumerate(one.history) if item in index] for one in queries]
    event_types = [one.event_types if one.event_types is not None else [names.default] * len(one.history) for one in queries]
    names.check([name for one in event_types for name in one])
    codes = names.codes(_flat(event_types, kept))
    default = iter(names.positive[codes].tolist())
    positive: list[bool] = []
    for query, part in zip(queries, kept, strict=True):
        by_name = [next(default) for _ in part]
        positive += by_name if query.positive is None else [query.positive[place] for place in part]
    times = [one.times if one.times is not None else [0] * len(one.history) for one in queries]
    found = Histories.of_items([[index[one.history[place]] for place in part] for one, part in zip(queries, kept, strict=True)])
    return replace(
        found,
        event_types=codes,
        positive=np.array(positive, dtype=np.bool_),
        seen=names.seen[codes],
        times=np.array(_flat(times, kept), dtype=np.int64),
        request_time=np.array([one.known_time for one in queries], dtype=np.int64),
        links=_links(queries, index, names),
    )


def _links(queries: Sequence[Query], index: Mapping[str, int], names: EventNames) -> Links | None:
    """Every friend is a row of its own: nothing says which friends of two users are the same person."""
    friends = [Query(history) for query in queries for history in query.friends]
    if not friends:
        return None
    offsets = np.cumsum([0, *(len(query.friends) for query in queries)], dtype=np.int64)
    return Links(offsets, np.arange(len(friends)), build_histories(friends, index, names))


def _check(number: int, query: Query) -> None:
    events = len(query.history)
    for name in ("times", "event_types", "positive"):
        given = getattr(query, name)
        if given is not None and len(given) != events:
            raise InputError(
                f"query {number}: {len(given)} {name} for {events} events. Give one for each event of the history, or none at all."
            )


def _flat(lists: Sequence[Sequence[Any]], kept: Sequence[Sequence[int]]) -> list[Any]:
    """The values at the kept places of each list, one list after the other."""
    return [one[place] for one, places in zip(lists, kept, strict=True) for place in places]
