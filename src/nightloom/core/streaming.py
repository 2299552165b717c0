"""Queries as a service gets them: before each event of a period, with all that its user did strictly before it (prequential).

The histories of a user's queries are beginnings of one sequence. They are kept as such, and made one by one when they are read: a
thousand events of one user would be half a million in histories of their own. A causal network reads the sequence once for all of
them (`nightloom.models.sequential.network.encode`). Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import offsets_of, owners
from nightloom.core.sequences import Histories, IntArray, Links, Queries, Sequences

STREAMING = "streaming"
"""The protocol of these queries."""
IN_TIME = (STREAMING, "temporal")
"""Protocols that cut all users' events at one time."""
MOST_OF_A_USER = 100
"""Events of one user that are asked about, drawn at random where there are more: a few people with thousands must not decide."""
MOST_QUERIES = 50_000
"""Events that are asked about in all; where there are more, users are drawn, with all their events."""
MOST_SCORES = 5_000_000_000
"""Scores of all those queries, each of which ranks all items: of a catalogue of more than 100,000 items fewer events are asked about."""
DAY = 86_400
DRAW = 20_261_130
"""Seed of both draws. It is no setting, so that nights and models on the same events are asked the same."""


@dataclass(frozen=True)
class Prefixes:
    """Histories that are beginnings of users' sequences.

    Attributes:
        sequences: every user's events in time order.
        users: int64 [n], dense users, ascending.
        stop: int64 [n], absolute positions in the events; history i ends before `stop[i]`.
        request_time: int64 [n], in seconds (zero where times are not known).
        links: of all users of the sequences, friends known as they were when the part began; None without links.
    """

    sequences: Sequences
    users: IntArray
    stop: IntArray
    request_time: IntArray
    links: Links | None = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def start(self) -> IntArray:
        """Where each history begins, int64 [n]."""
        return self.sequences.offsets[:-1][self.users]

    @property
    def lengths(self) -> IntArray:
        """Events of each history, int64 [n]."""
        return self.stop - self.start

    def take(self, rows: NDArray[np.integer] | slice) -> Prefixes:
        """The histories of some rows, in that order."""
        return replace(self, users=self.users[rows], stop=self.stop[rows], request_time=self.request_time[rows])

    def packed(self) -> Histories:
        """The histories with events of their own."""
        links = self.links and self.links.take(self.users)
        return replace(self.sequences.before(self.users, self.stop), request_time=self.request_time, links=links, prefixes=self)

    def totals(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum of some values of items, [n_items], over each history's events: float64 [n]."""
        through = np.concatenate([[0.0], np.cumsum(values[self.sequences.items], dtype=np.float64)])
        found: NDArray[np.float64] = through[self.stop] - through[self.start]
        return found

    def recoded(self, codes: NDArray[np.int16]) -> Prefixes:
        """The same with other codes of event names: int16 [names], the new code of each."""
        return replace(self, sequences=replace(self.sequences, event_types=codes[self.sequences.event_types]))


def cut_in_time(meta: Mapping[str, Any], name: str) -> Any:
    """What `meta.json` of stage prepare says under `cutoffs` or `trained_until` for a protocol in time, which all cut alike; else None."""
    found = meta.get(name, {})
    return next((found[protocol] for protocol in IN_TIME if protocol in found), None)


def queries_of(protocol: str, sequences: Sequences, part: str, *, exclude_seen: bool) -> Queries:
    """The queries of a part as a protocol asks them: before each event, or one for each user; see `Sequences.queries`."""
    ask = streaming_queries if protocol == STREAMING else Sequences.queries
    return ask(sequences, part, exclude_seen=exclude_seen)


def streaming_queries(sequences: Sequences, part: str, *, exclude_seen: bool = True) -> Queries:
    """A query for each positive event of a part, asked at its time with everything known strictly before it.

    Events of one second, such as one basket, do not know each other; an item that is among them twice is asked once. Without times, or
    where they are dates, each event is later than the one before it.

    Args:
        sequences: events with the split's cut-offs.
        part: "validation" or "test".
        exclude_seen: leave out events on items that the history has seen (they would never be shown).

    Returns:
        Queries with one held-out item each, by user and time, at most `MOST_OF_A_USER` of a user, and as many as `most_queries` says.
    """
    owner = owners(sequences.offsets)
    first = first_of_moment(sequences, owner)
    asked = np.flatnonzero(askable(sequences, part, exclude_seen=exclude_seen))
    events = asked[drawn(owner[asked], most_queries(sequences.n_items))]
    times = sequences.times[events]
    return Queries(
        users=owner[events],
        histories=Prefixes(sequences, owner[events], first[events], times, sequences.links(with_validation=part == "test")),
        target_offsets=offsets_of(np.ones(len(events), dtype=np.int64)),
        targets=sequences.items[events],
        times=times,
    )


def askable(sequences: Sequences, part: str, *, exclude_seen: bool, moments: bool | None = None) -> NDArray[np.bool_]:
    """The events that `streaming_queries` draws from, bool [events]; arguments as there.

    Of some of the users, `moments` says what `has_moments` says of all.
    """
    start, stop = (
        (sequences.train_end, sequences.validation_end) if part == "validation" else (sequences.validation_end, sequences.offsets[1:])
    )
    owner, place = owners(sequences.offsets), np.arange(len(sequences.items))
    first = first_of_moment(sequences, owner, moments)
    found = np.flatnonzero(sequences.positive & (place >= start[owner]) & (place < stop[owner]))
    del place
    if exclude_seen:
        found = found[_seen_from(sequences, owner, found) >= first[found]]
    pair = owner[found] * np.int64(sequences.n_items) + sequences.items[found]
    order = np.lexsort((found, first[found], pair))
    twice = (np.diff(pair[order], prepend=-1) == 0) & (np.diff(first[found[order]], prepend=-1) == 0)
    asked = np.zeros(len(owner), dtype=bool)
    asked[found[order[~twice]]] = True
    return asked


def _seen_from(sequences: Sequences, owner: IntArray, events: IntArray) -> IntArray:
    """Of each event's user and item the first event that makes the item seen, int64 [events]; past all events where none does."""
    asked = np.zeros(sequences.n_users, dtype=bool)
    asked[owner[events]] = True
    seen = np.flatnonzero(sequences.seen & asked[owner])
    pair = owner[seen] * np.int64(sequences.n_items) + sequences.items[seen]
    order = np.argsort(pair, kind="stable")
    pair, seen = pair[order], seen[order]
    new = np.diff(pair, prepend=-1) != 0
    pair, seen = np.append(pair[new], -1), np.append(seen[new], len(owner))
    wanted = owner[events] * np.int64(sequences.n_items) + sequences.items[events]
    at = np.searchsorted(pair[:-1], wanted)
    return np.where(pair[at] == wanted, seen[at], len(owner))


def has_moments(times: IntArray) -> bool:
    """Whether times tell moments; a date is none: a service sees the events of a day one after the other, in the order of the rows."""
    return bool(times.any() and np.ptp(times % DAY))


def first_of_moment(sequences: Sequences, owner: IntArray, moments: bool | None = None) -> IntArray:
    """The position of the first event of each event's user and second, int64 [events]; without moments its own.

    Args:
        sequences: of some users.
        owner: int64 [events], each event's user.
        moments: what `has_moments` says; None: it is asked.
    """
    place = np.arange(len(owner))
    if not (has_moments(sequences.times) if moments is None else moments):
        return place
    begins = np.ones(len(owner), dtype=bool)
    begins[1:] = (owner[1:] != owner[:-1]) | (sequences.times[1:] != sequences.times[:-1])
    return np.maximum.accumulate(np.where(begins, place, 0))


def most_queries(n_items: int) -> int:
    """How many events are asked about at most, in a catalogue of some items."""
    return min(MOST_QUERIES, MOST_SCORES // max(n_items, 1))


def drawn(owner: IntArray, most: int) -> IntArray:
    """Which of some events are asked about: at most `MOST_OF_A_USER` of a user, and users as long as theirs stay within the most.

    Args:
        owner: int64 [events], each event's user, ascending.
        most: events in all.

    Returns:
        int64 [drawn], places among the events, ascending.
    """
    random = np.random.default_rng(DRAW)
    shuffled = random.permutation(len(owner))
    order = shuffled[np.argsort(owner[shuffled], kind="stable")]
    users, many = np.unique(owner, return_counts=True)
    among = np.arange(len(order)) - np.repeat(offsets_of(many)[:-1], many)
    order, counts = order[among < MOST_OF_A_USER], np.minimum(many, MOST_OF_A_USER)
    if counts.sum() > most:
        turn = random.permutation(len(users))
        inside = np.zeros(len(users), dtype=bool)
        inside[turn[np.cumsum(counts[turn]) <= most]] = True
        order = order[np.repeat(inside, counts)]
    return np.sort(order)
