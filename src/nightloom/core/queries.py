"""One request for recommendations, and how some of them become the packed histories that a model reads.

The registered pyfunc, the command line and the service all build histories here, so that they answer alike. Needs numpy alone.
(`Queries` of `nightloom.core.sequences` is what evaluation ranks: packed histories with their held-out items and the time of each request.
`Clock` takes a given time as it is, so the same user at the same time gets the same scores everywhere.)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.core.ragged import offsets_of
from nightloom.core.sequences import Histories, Links

LIVE_SECONDS = 30 * 86_400
"""A request without a time is now while the latest known event is no older than this: as far back as the longest counters look."""


NO_SECONDS = 10**11
"""Seconds since 1970 are less than this until the year 5138; milliseconds are more since 1973."""


@dataclass(frozen=True)
class Query:
    """A history, and what is known of the request.

    Attributes:
        history: item ids, oldest first; ids that the catalogue lacks are skipped.
        times: when each event happened, seconds since 1970, in order; None where that is not known, and the model answers from order alone.
        event_types: the event name of each event; None: each has the model's default event type.
        positive: whether each event was positive (liked, bought); None: the event names decide.
        friends: histories, item ids oldest first, of the users that this one is linked to.
        request_time: seconds since 1970, not before the latest event; None: now (see `Clock`). It counts only where the times of the
            events are known.
        user_id: whose history it is, where that is known.
    """

    history: Sequence[str] = ()
    times: Sequence[int] | None = None
    event_types: Sequence[str] | None = None
    positive: Sequence[bool] | None = None
    friends: Sequence[Sequence[str]] = ()
    request_time: int | None = None
    user_id: str | None = None

    def at(self, moment: int) -> Query:
        """The query as it was at a moment: events of that second or later have not happened yet."""
        if self.times is None:
            return replace(self, request_time=moment)
        kept = [place for place, second in enumerate(self.times) if second < moment]
        lists = {name: getattr(self, name) for name in ("history", "times", "event_types", "positive")}
        past: dict[str, Any] = {name: None if values is None else [values[place] for place in kept] for name, values in lists.items()}
        return replace(self, request_time=moment, **past)


@dataclass(frozen=True)
class Clock:
    """How a model takes the time of a request.

    A request without a time is made now. Where the latest known event is older than `LIVE_SECONDS`, the data no longer grow (a data
    set of the past), and now would be a time of which nobody knows anything: then the request is made just after that event.
    A given time is taken as it is, as evaluation takes the times of its queries.

    Attributes:
        has_time: whether the model's data have times; without them no request has one.
        latest: the latest event of the model's data, in seconds since 1970; None where that is not known, and now is always now.
    """

    has_time: bool = True
    latest: int | None = None

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Self:
        """From `meta.json` of stage prepare; one of before it named the latest event says at least when the training data end."""
        ends = [meta.get("latest_event"), *meta.get("trained_until", {}).values()]
        return cls(bool(meta.get("has_time", True)), max((int(end) for end in ends if end is not None), default=None))

    def time_of(self, query: Query, now: int) -> int:
        """The time of a request as models read it, in seconds since 1970; 0 where the times of its events are not known.

        Args:
            query: the request.
            now: seconds since 1970.
        """
        if not self.has_time or (query.times is None and len(query.history)):
            return 0
        if query.request_time is not None:
            return int(query.request_time)
        latest = int(max(query.times, default=0)) if query.times is not None else 0
        if self.latest is not None and now - max(latest, self.latest) > LIVE_SECONDS:
            return max(latest, self.latest) + 1
        return max(now, latest)


def build_histories(queries: Sequence[Query], index: Mapping[str, int], names: EventNames, clock: Clock) -> Histories:
    """The histories of some queries as a model reads them.

    Args:
        queries: the requests; those without a time are made at the moment of this call.
        index: dense item id by item id; events of other items are left out.
        names: the event names that the model knows.
        clock: when a request is made.

    Returns:
        `len(queries)` histories, with links where a query has friends.

    Raises:
        InputError: a list of a query does not match its history, its times are no seconds or fall, the request is before an event, or
            the model does not know an event name.
    """
    given = [_times(number, query) for number, query in enumerate(queries)]
    dense = np.array([index.get(item, -1) for one in queries for item in one.history], dtype=np.int32)
    offsets = offsets_of([len(one.history) for one in queries])
    codes, times = np.full(len(dense), names.default_code, dtype=np.int16), np.zeros(len(dense), dtype=np.int64)
    if any(one.event_types is not None for one in queries):
        said = [name for one in queries for name in ([names.default] * len(one.history) if one.event_types is None else one.event_types)]
        names.check(said)
        codes = names.codes(said)
    positive = names.positive[codes]
    for query, moments, first, last in zip(queries, given, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        if query.positive is not None:
            positive[first:last] = query.positive
        if moments is not None:
            times[first:last] = moments
    known = dense >= 0
    if not known.all():
        offsets = offsets_of(known)[offsets]
        dense, times, codes, positive = dense[known], times[known], codes[known], positive[known]
    now = int(time.time())
    asked = np.array([clock.time_of(one, now) for one in queries], dtype=np.int64)
    return Histories(offsets, dense, times, codes, positive, asked, _links(queries, index, names), names.seen[codes])


def _links(queries: Sequence[Query], index: Mapping[str, int], names: EventNames) -> Links | None:
    """Every friend is a row of its own: nothing says which friends of two users are the same person."""
    friends = [Query(history) for query in queries for history in query.friends]
    if not friends:
        return None
    offsets = np.cumsum([0, *(len(query.friends) for query in queries)], dtype=np.int64)
    return Links(offsets, np.arange(len(friends)), build_histories(friends, index, names, Clock(has_time=False)))


def _times(number: int, query: Query) -> NDArray[np.int64] | None:
    """The times of a query's events; None where they are not known.

    Raises:
        InputError: a list does not match the history, or a time can not be.
    """
    events = len(query.history)
    for name in ("times", "event_types", "positive"):
        given = getattr(query, name)
        if given is not None and len(given) != events:
            raise InputError(
                f"query {number}: {len(given)} {name} for {events} events. Give one for each event of the history, or none at all."
            )
    if query.request_time is not None:
        _seconds(number, "request_time", np.asarray((query.request_time,)))
    if query.times is None:
        return None
    times = np.asarray(query.times)
    falls = bool((times[1:] < times[:-1]).any())
    _seconds(number, "times", times if falls else times[:: max(events - 1, 1)])  # where they do not fall, the first and the last say it
    if falls:
        raise InputError(f"query {number}: its times fall. Give the events of a history oldest first, and their times with them.")
    if query.request_time is not None and events and times[-1] > query.request_time:
        raise InputError(
            f"query {number}: request_time {query.request_time} is before its latest event, at {times[-1]}. Leave out the events that came "
            "later, or give the time of the request (seconds since 1970)."
        )
    return times


def _seconds(number: int, name: str, given: NDArray[Any]) -> None:
    """Refuse what is no time in seconds."""
    if given.size and np.abs(given).max() >= NO_SECONDS:
        raise InputError(
            f"query {number}: {name} holds {given[np.abs(given).argmax()]}, which is no time in seconds since 1970. Are these "
            "milliseconds? Divide them by 1,000."
        )
