"""The engine: recommendations from a serving artefact, without torch. The same answers as `nightloom.packaging.bundle.Bundle`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.queries import Query, build_histories
from nightloom.core.sequences import Histories
from nightloom.packaging.serving_format import NETWORK, SCORERS
from nightloom.serving.artefact import Artefact, part
from nightloom.serving.growing import Growing
from nightloom.serving.members import Member, members_of
from nightloom.serving.scoring import best, fuse, standards
from nightloom.serving.transformer import BOS, UNKNOWN, Network, Tokens, extend

Answer = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Dense items, best first, and their scores; shorter than what was asked for where that can not be filled."""
NOTHING_SEEN = np.zeros(0, dtype=np.int32)


class Engine:
    """An opened artefact that answers and learns.

    One lock goes round every call, so a reader never sees an event, or an item, by halves; calls of several threads wait for each
    other. Kernels release the interpreter's lock, so other threads of the process run meanwhile.

    Args:
        artefact: what the engine starts from.

    Attributes:
        item_index: dense id by item id, items that came by day included.
    """

    def __init__(self, artefact: Artefact) -> None:
        self.artefact = artefact
        self.names, self.clock = artefact.event_names, artefact.clock
        said, arrays = artefact.manifest, artefact.arrays(NETWORK)
        self.max_history: int = said.model["max_history"]
        self.net = Network(*(arrays[name] for name in Network._fields))
        self._vectors: Growing[np.float32] = Growing(arrays["vectors"])
        self._mean, self._covariance = arrays["mean"], arrays["covariance"]
        scorers = artefact.arrays(SCORERS)
        self.members: dict[str, Member] = members_of({name: part(scorers, name) for name in said.scorers}, said.scorers)
        self.item_ids: list[str] = list(artefact.catalogue["item_id"])
        self.item_index = {item_id: dense for dense, item_id in enumerate(self.item_ids)}
        self._alive: Growing[np.bool_] = Growing(np.ones(len(self.item_ids), dtype=np.bool_))
        self._all = np.arange(len(self.item_ids))
        self._lock = threading.RLock()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an artefact.

        Raises:
            InputError: the folder is no artefact, it is damaged, or of another format.
        """
        return cls(Artefact.open(folder))

    @property
    def n_items(self) -> int:
        """Size of the catalogue, items that were removed included."""
        return self._vectors.n

    def recommend(
        self,
        query: Query,
        k: int,
        *,
        exclude_seen: bool = True,
        allowed: NDArray[np.bool_] | None = None,
        candidates: NDArray[np.int64] | None = None,
    ) -> Answer:
        """The k best items for a query.

        Args:
            query: the history and the request.
            k: how many.
            exclude_seen: leave out items of the history.
            allowed: bool [items] by dense id: the others are never recommended. It may be shorter than the catalogue, by items that have
                come since it was made; they are not allowed then. None: all.
            candidates: int64 [m], dense items: only these are ranked. None: the whole catalogue.

        Raises:
            InputError: a list of the query does not match its history, or the model does not know an event name.
        """
        with self._lock:
            histories = build_histories([query], self.item_index, self.names, self.clock)
            return self._answer(histories, self._encode(histories), k, exclude_seen, allowed, candidates)

    def _encode(self, histories: Histories) -> NDArray[np.float32]:
        """User vector of one history, float32 [dim]."""
        tokens = tokens_of(histories, self.max_history, timed=len(self.net.gaps) > 0)
        n, (blocks, dim) = len(tokens.items), self.net.kv.shape[:2]
        keys, values = np.empty((blocks, dim, n), np.float32), np.empty((blocks, n, dim), np.float32)
        user: NDArray[np.float32] = extend(self.net, self._vectors.array, tokens, 0, keys, values, True)
        return user

    def _answer(
        self,
        histories: Histories,
        user: NDArray[np.float32],
        k: int,
        exclude_seen: bool,
        allowed: NDArray[np.bool_] | None,
        candidates: NDArray[np.int64] | None,
    ) -> Answer:
        """The best items for one history and its user vector; the rest as in `recommend`."""
        pool = self._all if candidates is None else np.unique(np.asarray(candidates, dtype=np.int64))
        scores = np.empty((len(self.members), self.n_items), np.float32)
        for row, member in zip(scores, self.members.values(), strict=True):
            member.score(histories, row)
        lines = np.empty((len(self.members) + 1, 3))
        standards(user, self._mean, self._covariance, scores, lines)
        weights = fusion_weights(self.artefact.manifest.weights, len(histories.items))
        fused = np.empty(len(pool), np.float32)
        fuse(self._vectors.array, user, scores, lines, weights, pool, fused)
        open_to = self._open_to(allowed)
        seen = histories.items[histories.seen] if exclude_seen else NOTHING_SEEN
        k = min(k, len(pool))
        items, values = np.empty(k, np.int64), np.empty(k, np.float32)
        many = best(fused, pool, open_to, seen, k, items, values)
        return items[:many], values[:many]

    def _open_to(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Items that may be recommended: those that are allowed and were not removed."""
        alive = self._alive.array
        if allowed is None:
            return alive
        if len(allowed) == len(alive):
            return alive & allowed
        wider = np.zeros(len(alive), dtype=np.bool_)
        wider[: len(allowed)] = allowed
        return alive & wider


def fusion_weights(weights: dict[str, float] | Any, length: int) -> NDArray[np.float32]:  # noqa: ARG001
    """Weight of each member for one query, the network's first, float32 [scorers + 1].

    Args:
        weights: the bundle's description of them: scorer -> weight; the network has the rest.
        length: events of the history.
    """
    return np.array([1 - sum(weights.values()), *weights.values()], dtype=np.float32)


def tokens_of(histories: Histories, max_history: int, *, timed: bool) -> Tokens:
    """The window of one history that is read: its latest `max_history` tokens.

    Args:
        histories: one history.
        max_history: most tokens.
        timed: whether the model reads times.
    """
    n = len(histories.items)
    items, codes, negative = np.empty(n + 1, np.int32), np.zeros(n + 1, np.int16), np.zeros(n + 1, np.bool_)
    items[0], items[1:] = BOS, histories.items
    codes[1:] = histories.event_types
    np.logical_not(histories.positive, out=negative[1:])
    times, asked = np.full(n + 1, UNKNOWN), np.zeros(n + 1, np.int64)
    now = histories.request_time[0]
    if timed and now > 0:
        times[1:] = asked[:-1] = histories.times
        asked[-1] = now
    first = max(n + 1 - max_history, 0)
    return Tokens(items[first:], codes[first:], negative[first:], times[first:], asked[first:])
