"""Event histories as flat arrays: packed, with no padding.

Needs numpy alone, since training workers on bare machines read these.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.arrays import map_arrays, write_arrays
from nightloom.core.ragged import gather, offsets_of, owners

if TYPE_CHECKING:
    from nightloom.core.streaming import Prefixes

IntArray = NDArray[np.int64]

COLUMNS = ("items", "times", "event_types", "positive", "seen")
"""Columns of the events."""


@dataclass(frozen=True)
class Histories:
    """Some event histories, one after the other, oldest event first.

    Attributes:
        offsets: int64 [n + 1]; history i is `items[offsets[i]:offsets[i + 1]]`.
        items: int32 [events], dense item ids.
        times: int64 [events], seconds since 1970 UTC; all zero when the data have no time.
        event_types: int16 [events], codes of event names.
        positive: bool [events], whether the event is a positive label.
        request_time: int64 [n], the time of the request, in seconds (zero where times are not known).
        links: the users that each history's user is linked to, with their histories; None without links.
        seen: bool [events], whether the event makes its item seen, so that it is left out where seen items are; None: every event does.
        prefixes: what these are beginnings of, so that a causal network may read each sequence once; None where they stand alone.
    """

    offsets: IntArray
    items: NDArray[np.int32]
    times: IntArray
    event_types: NDArray[np.int16]
    positive: NDArray[np.bool_]
    request_time: IntArray
    links: Links | None = None
    seen: NDArray[np.bool_] = None  # type: ignore[assignment]
    prefixes: Prefixes | None = None

    def __post_init__(self) -> None:
        _all_seen(self)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        """Events of each history, int64 [n]."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.integer] | slice) -> Histories:
        """The histories of some rows, in that order."""
        index = np.arange(len(self))[rows]
        starts, lengths = self.offsets[:-1][index], self.lengths[index]
        events = self.of_events(gather(starts, lengths), offsets_of(lengths))
        links, prefixes = self.links and self.links.take(index), self.prefixes and self.prefixes.take(index)
        return replace(events, request_time=self.request_time[index], links=links, prefixes=prefixes)

    def of_events(self, events: NDArray[Any], offsets: IntArray) -> Histories:
        """Some of the events, by position or bool [events], as histories with other offsets; request times and links stay."""
        return replace(self, offsets=offsets, prefixes=None, **{name: getattr(self, name)[events] for name in COLUMNS})

    def packed(self) -> Histories:
        """These; `Prefixes` make events of their own."""
        return self

    def totals(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum of some values of items, [n_items], over each history's events: float64 [n]."""
        return np.bincount(owners(self.offsets), values[self.items], minlength=len(self)).astype(np.float64)

    def recoded(self, codes: NDArray[np.int16]) -> Histories:
        """The same with other codes of event names: int16 [names], the new code of each."""
        return replace(self, event_types=codes[self.event_types], prefixes=self.prefixes and self.prefixes.recoded(codes))

    @classmethod
    def of_items(cls, lists: list[list[int]], request_time: int = 0) -> Histories:
        """Histories from item lists alone (event type 0, all positive, no time)."""
        lengths = [len(one) for one in lists]
        total = sum(lengths)
        return cls(
            offsets_of(lengths),
            np.array([item for one in lists for item in one], dtype=np.int32),
            np.zeros(total, dtype=np.int64),
            np.zeros(total, dtype=np.int16),
            np.ones(total, dtype=bool),
            np.full(len(lists), request_time, dtype=np.int64),
        )


@dataclass(frozen=True)
class Links:
    """The users that the user of each history is linked to (friends).

    Attributes:
        offsets: int64 [n + 1]; history i is linked to `friends[offsets[i]:offsets[i + 1]]`.
        friends: int64 [links], rows of `known`.
        known: each friend's history, as far as it is known at the request; shared by all.
    """

    offsets: IntArray
    friends: IntArray
    known: Histories

    def take(self, rows: IntArray) -> Links:
        """The links of some histories, in that order."""
        lengths = np.diff(self.offsets)[rows]
        return Links(offsets_of(lengths), self.friends[gather(self.offsets[:-1][rows], lengths)], self.known)


@dataclass(frozen=True)
class Sequences:
    """Every user's events in time order with the split's two cutoffs.

    User u's events are `offsets[u]:offsets[u+1]`; those before `train_end[u]` are for training, up to
    `validation_end[u]` for validation, the rest for the test. A split is never more than these two
    arrays, so a later event can not come before an earlier one.

    Attributes:
        offsets: int64 [users + 1].
        items: int32 [events].
        times: int64 [events], seconds since 1970 UTC; all zero when the data have no time.
        event_types: int16 [events], codes of event names.
        positive: bool [events].
        train_end: int64 [users], absolute positions.
        validation_end: int64 [users], absolute positions.
        n_items: size of the catalogue (items without events included).
        link_offsets: int64 [users + 1]; user u is linked to `link_users[link_offsets[u]:link_offsets[u + 1]]`; empty without links.
        link_users: int64 [links], dense users.
        seen: bool [events], whether the event makes its item seen, so that it is left out where seen items are; None: every event does.
    """

    offsets: IntArray
    items: NDArray[np.int32]
    times: IntArray
    event_types: NDArray[np.int16]
    positive: NDArray[np.bool_]
    train_end: IntArray
    validation_end: IntArray
    n_items: int
    link_offsets: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    link_users: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    seen: NDArray[np.bool_] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _all_seen(self)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    @property
    def has_time(self) -> bool:
        """Whether events carry real times."""
        return bool(self.times.any())

    def save(self, path: Path) -> None:
        """Write as .npz without pickles."""
        write_arrays(path, {name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: Path) -> Sequences:
        """Read what `save` wrote; the arrays are mapped into memory, which processes share."""
        arrays = map_arrays(path)
        content: dict[str, Any] = {name: arrays[name] for name in cls.__dataclass_fields__ if name in arrays}
        return cls(**(content | {"n_items": int(content["n_items"])}))

    def train(self, *, with_validation: bool = False) -> Histories:
        """Training part of every user, which may be empty; with the validation part when a model is refitted."""
        return self._span(self.offsets[:-1], self.validation_end if with_validation else self.train_end)

    def links(self, *, with_validation: bool = False) -> Links | None:
        """Every user's links, friends known by their parts as `train` gives them; None without links."""
        if not len(self.link_offsets):
            return None
        return Links(self.link_offsets, self.link_users, self.train(with_validation=with_validation))

    def of_users(self, users: IntArray) -> Sequences:
        """The sequences of some users, int64 [n] dense users, over the same catalogue; user i of the result is `users[i]`."""
        part = self._span(self.offsets[:-1], self.offsets[1:]).take(users)
        shift = part.offsets[:-1] - self.offsets[:-1][users]
        ends = (self.train_end[users] + shift, self.validation_end[users] + shift)
        links = self._links_of(users)
        return Sequences(part.offsets, part.items, part.times, part.event_types, part.positive, *ends, self.n_items, *links, part.seen)

    def _links_of(self, users: IntArray) -> tuple[IntArray, IntArray]:
        """Links among some users, by their places in `users`; those to others are left out."""
        if not len(self.link_offsets):
            return self.link_offsets, self.link_users
        place = np.full(self.n_users, -1, dtype=np.int64)
        place[users] = np.arange(len(users))
        one = np.repeat(place, np.diff(self.link_offsets))
        other = place[self.link_users]
        kept = np.flatnonzero((one >= 0) & (other >= 0))
        kept = kept[np.argsort(one[kept], kind="stable")]
        return np.searchsorted(one[kept], np.arange(len(users) + 1)).astype(np.int64), other[kept]

    def queries(self, part: str, *, exclude_seen: bool = True) -> Queries:
        """The held-out queries of a part: history before its cutoff, positive items after it.

        Args:
            part: "validation" or "test".
            exclude_seen: leave out held-out items that the history has seen (they would never be shown).

        Returns:
            One query for each user with at least one held-out item, at the time of the user's first held-out event.
        """
        start, stop = (self.train_end, self.validation_end) if part == "validation" else (self.validation_end, self.offsets[1:])
        owner = owners(self.offsets)
        position = np.arange(len(self.items))
        pair = owner * np.int64(self.n_items) + self.items
        held = np.flatnonzero(self.positive & (position >= start[owner]) & (position < stop[owner]))
        held = held[np.sort(np.unique(pair[held], return_index=True)[1])]  # each item once for a user, in time order
        if exclude_seen:
            held = held[~np.isin(pair[held], pair[self.seen & (position < start[owner])])]
        rows, lengths = np.unique(owner[held], return_counts=True)
        known = self._span(self.offsets[:-1], start)
        links = Links(self.link_offsets, self.link_users, known).take(rows) if len(self.link_offsets) else None
        return Queries(
            users=rows,
            histories=replace(known.take(rows), request_time=self.times[start[rows]], links=links),
            target_offsets=offsets_of(lengths),
            targets=self.items[held],
            times=self.times[held],
        )

    def before(self, users: IntArray, places: IntArray) -> Histories:
        """Histories of some users, int64 [n] dense users, before some of their events, int64 [n] absolute positions."""
        return self._span(self.offsets[:-1][users], places)

    def _span(self, start: IntArray, stop: IntArray) -> Histories:
        lengths = stop - start
        flat = gather(start, lengths)
        return Histories(
            offsets_of(lengths), request_time=np.zeros(len(start), dtype=np.int64), **{name: getattr(self, name)[flat] for name in COLUMNS}
        )


@dataclass(frozen=True)
class Queries:
    """Held-out queries: histories, and the items that the users interacted with next.

    Attributes:
        users: int64 [n], dense user ids.
        histories: what is known at the time of each query; take some of them and call `packed` for their events.
        target_offsets: int64 [n + 1].
        targets: int32 [rows], held-out items; query i's are `targets[target_offsets[i]:target_offsets[i+1]]`.
        times: int64 [rows], when each held-out event happened, in seconds; zero where that is not known.
    """

    users: IntArray
    histories: Histories | Prefixes
    target_offsets: IntArray
    targets: NDArray[np.int32]
    times: IntArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.times is None:
            object.__setattr__(self, "times", np.zeros(len(self.targets), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: IntArray) -> Queries:
        """Some of the queries, int64 [m] rows, in that order."""
        lengths = np.diff(self.target_offsets)[rows]
        flat = gather(self.target_offsets[:-1][rows], lengths)
        return Queries(self.users[rows], self.histories.take(rows), offsets_of(lengths), self.targets[flat], self.times[flat])

    def only(self, rows: NDArray[np.bool_]) -> tuple[Queries, IntArray]:
        """Some of the held-out items, bool [rows], with the queries that still have one, and the places of these, int64 [m]."""
        lengths = np.bincount(owners(self.target_offsets)[rows], minlength=len(self))
        kept = np.flatnonzero(lengths)
        users, histories = self.users[kept], self.histories.take(kept)
        return Queries(users, histories, offsets_of(lengths[kept]), self.targets[rows], self.times[rows]), kept


def _all_seen(one: Histories | Sequences) -> None:
    """Without flags every event makes its item seen."""
    if one.seen is None:
        object.__setattr__(one, "seen", np.ones(len(one.items), dtype=bool))
