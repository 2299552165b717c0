"""Stored users in memory: their histories, and the encoder's keys and values of all tokens that no later event can change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.serving.items.growing import aligned_empty, more_room, wider
from nightloom.serving.model.rows import Rows
from nightloom.serving.model.transformer import BOS, UNKNOWN, Network, Tokens, extend, rounded

FloatArray = NDArray[np.float32]
COLUMNS = {"items": np.int32, "codes": np.int16, "negative": np.bool_, "times": np.int64, "asked": np.int64, "seen": np.bool_}
BESIDE = 1_300
"""Bytes of a user beside the numbers: Python's objects and the place in the cache, nearly half of what a short history takes."""


class StoredUser:
    """One user's tokens, BOS first, and the keys and values of those in the window but the last.

    Args:
        history: of one user, oldest event first.
        timed: whether the times of the user's events are known.
    """

    def __init__(self, history: Histories, *, timed: bool) -> None:
        self.timed, self.n = timed, len(history.items) + 1
        self._columns: dict[str, NDArray[Any]] = {name: np.zeros(more_room(self.n), kind) for name, kind in COLUMNS.items()}
        columns = self._columns
        columns["items"][0], columns["times"][0] = BOS, UNKNOWN
        given = {
            "items": history.items,
            "codes": history.event_types,
            "negative": ~history.positive,
            "times": history.times,
            "seen": history.seen,
        }
        for name, values in given.items():
            columns[name][1 : self.n] = values
        columns["asked"][: self.n - 1] = history.times
        self.keys: FloatArray | None = None
        self.values: FloatArray | None = None
        self._first, self._kept = 0, 0

    @property
    def nbytes(self) -> int:
        """Memory that the user takes."""
        kept = [*self._columns.values(), *(one for one in (self.keys, self.values) if one is not None)]
        return BESIDE + sum(one.nbytes for one in kept)

    @property
    def encoded(self) -> int:
        """Tokens of the window whose keys and values are there."""
        return self._kept

    @property
    def items(self) -> NDArray[np.int32]:
        """The history's items, oldest first, int32 [events]."""
        return self._columns["items"][1 : self.n]

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Whether each event was positive, bool [events]."""
        return ~self._columns["negative"][1 : self.n]

    @property
    def times(self) -> NDArray[np.int64]:
        """When each event happened, int64 [events]."""
        return self._columns["times"][1 : self.n]

    def histories(self, request_time: int) -> Histories:
        """As scorers read it, with the time of a request."""
        columns = {name: values[1 : self.n] for name, values in self._columns.items()}
        offsets = np.array([0, self.n - 1], dtype=np.int64)
        asked = np.array([request_time], dtype=np.int64)
        own = (columns["items"], columns["times"], columns["codes"], ~columns["negative"], asked)
        return Histories(offsets, *own, seen=columns["seen"])

    def insert(self, item: int, code: int, time: int, *, positive: bool, seen: bool) -> int:
        """Take an event at its place in time, behind those of the same second; its place in the history."""
        place = int(np.searchsorted(self.times, time, "right")) + 1 if self.timed else self.n
        if self.n == len(self._columns["items"]):
            self._columns = {name: wider(values, more_room(self.n)) for name, values in self._columns.items()}
        row = {"items": item, "codes": code, "negative": not positive, "times": time, "seen": seen}
        for name, value in row.items():
            column = self._columns[name]
            column[place + 1 : self.n + 1] = column[place : self.n].copy()
            column[place] = value
        self.n += 1
        self._moved(place)
        return place - 1

    def find(self, item: int, code: int, time: int) -> int:
        """Place of the latest event with this item, name and time; -1 without one."""
        same = (self.items == item) & (self._columns["codes"][1 : self.n] == code) & (self.times == time)
        return int(np.flatnonzero(same)[-1]) if same.any() else -1

    def remove(self, place: int) -> None:
        """Take the event at a place of the history away."""
        for column in self._columns.values():
            column[place + 1 : self.n - 1] = column[place + 2 : self.n].copy()
        self.n -= 1
        self._moved(place + 1)

    def forget(self) -> None:
        """Forget keys and values, since what they were made of has changed."""
        self.keys = self.values = None
        self._kept = 0

    def encode(self, net: Network, vectors: Rows, max_history: int) -> None:
        """Make keys and values of all tokens in the window but the last, as far as they are not there."""
        self._encode(net, vectors, max_history, None)

    def vector(self, net: Network, vectors: Rows, max_history: int, request_time: int) -> FloatArray:
        """The user vector at a request, float32 [dim]."""
        return self._encode(net, vectors, max_history, request_time)

    def _moved(self, place: int) -> None:
        """Token `place` is new, or gone: the request time of the one before it, and all that comes after, are others."""
        asked, times = self._columns["asked"], self._columns["times"]
        asked[place - 1 : self.n - 1] = times[place : self.n]
        self._kept = max(min(self._kept, place - 1 - self._first), 0)

    def _encode(self, net: Network, vectors: Rows, max_history: int, request_time: int | None) -> FloatArray:
        first = max(self.n - max_history, 0)
        if first != self._first:  # the window has moved: what attended to the tokens that fell out is another one now
            self._first, self._kept = first, 0
        many = self.n - first
        self._make_room(net, many, max_history)
        window = {name: values[first : self.n] for name, values in self._columns.items()}
        times = window["times"] if self.timed and len(net.gaps) else np.full(many, UNKNOWN)
        tokens = Tokens(window["items"], window["codes"], window["negative"], times, window["asked"])
        if request_time is None:
            before = many - 1
            tokens = Tokens(
                window["items"][:before], window["codes"][:before], window["negative"][:before], times[:before], window["asked"][:before]
            )
            if many - 1 > self._kept:
                extend(net, vectors, tokens, self._kept, self.keys, self.values, False)
                self._kept = many - 1
            return np.empty(0, np.float32)
        window["asked"][-1] = request_time
        found: FloatArray = extend(net, vectors, tokens, self._kept, self.keys, self.values, True)
        self._kept = many - 1
        return found

    def _make_room(self, net: Network, many: int, max_history: int) -> None:
        """Room for the keys and values of so many tokens."""
        blocks, dim = net.shape
        if self.keys is not None and self.values is not None and self.keys.shape[2] >= many:
            return
        room = min(rounded(many + 1), rounded(max_history))
        keys, values = aligned_empty((blocks, dim, room)), aligned_empty((blocks, room, dim))
        if self.keys is not None and self.values is not None:
            keys[:, :, : self._kept], values[:, : self._kept] = self.keys[:, :, : self._kept], self.values[:, : self._kept]
        self.keys, self.values = keys, values


class UserCache:
    """The users that were last asked about or acted, up to a number of bytes; the least recent go first.

    Args:
        load: the user of a key, from wherever histories are stored.
        capacity: bytes.
    """

    def __init__(self, load: Callable[[str], StoredUser], capacity: int) -> None:
        self._load, self.capacity = load, capacity
        self._users: OrderedDict[str, tuple[StoredUser, int]] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, key: str) -> bool:
        return key in self._users

    def get(self, key: str) -> StoredUser:
        """The user of a key, loaded where it is not here; it is the most recent one now."""
        if key in self._users:
            self._users.move_to_end(key)
            return self._users[key][0]
        user = self._load(key)
        self._users[key] = (user, 0)
        self.measure(key)
        return user

    def recent(self) -> list[str]:
        """Keys, the most recent first."""
        return list(reversed(self._users))

    def peek(self, key: str) -> StoredUser | None:
        """The user of a key if it is here; which one is the most recent stays as it is."""
        found = self._users.get(key)
        return None if found is None else found[0]

    def offer(self, key: str, user: StoredUser) -> bool:
        """Take a user who is not here as the least recent one; false where there is no room."""
        if self.nbytes + user.nbytes > self.capacity:
            return False
        self._users[key] = (user, user.nbytes)
        self._users.move_to_end(key, last=False)
        self.nbytes += user.nbytes
        return True

    def measure(self, key: str) -> None:
        """Count what a user takes after it has changed, and let others go where that is too much."""
        user, before = self._users[key]
        self._users[key] = (user, user.nbytes)
        self.nbytes += self._users[key][1] - before
        while self.nbytes > self.capacity and len(self._users) > 1:
            oldest = next(iter(self._users))
            self.drop(oldest)

    def drop(self, key: str) -> None:
        """Let a user go, if it is here."""
        if key in self._users:
            self.nbytes -= self._users.pop(key)[1]

    def clear(self) -> None:
        """Let all users go."""
        self._users.clear()
        self.nbytes = 0

    def forget(self) -> None:
        """Let all keys and values go, not the histories."""
        for key, (user, _) in list(self._users.items()):
            user.forget()
            self.measure(key)
