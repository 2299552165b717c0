"""The engine: recommendations from a serving artefact, without torch. The same answers as `nightloom.packaging.bundle.Bundle`."""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.queries import Query, build_histories
from nightloom.core.sequences import Histories
from nightloom.models.scorers.newcomers import NEIGHBOURS
from nightloom.packaging.serving_format import LABELS, NETWORK, NEW_ITEMS, PENALTY, RERANKER, SCORERS
from nightloom.serving.items.catalogue import LiveCatalogue
from nightloom.serving.items.fresh_items import FreshItems
from nightloom.serving.items.new_items import ItemMaker, NewItem, TextSpace
from nightloom.serving.model.artefact import Artefact, part
from nightloom.serving.model.counters import LiveCounters
from nightloom.serving.model.int8_product import Packed
from nightloom.serving.model.labels import LabelHead
from nightloom.serving.model.members import Factors, Graph, ItemEdges, Member, Popularity, members_of
from nightloom.serving.model.penalty import Penalty
from nightloom.serving.model.ranker import Answer, Others, Ranker, best_of
from nightloom.serving.model.rerank import Reranker
from nightloom.serving.model.retrieval import Retrieval, trials_of
from nightloom.serving.model.rows import taken
from nightloom.serving.model.transformer import tokens_of, user_vector
from nightloom.serving.model.users import StoredUser, UserCache
from nightloom.serving.model.weights import Arithmetic, network_of, rows_of
from nightloom.serving.reasons.attribution import Estimator
from nightloom.serving.reasons.coalitions import Coalitions
from nightloom.serving.settings import CACHE_BYTES, LARGE

FloatArray = NDArray[np.float32]
LATEST = 20
"""Events of a history by which a new item may be near."""


def nobody(user: str) -> Query:  # noqa: ARG001  # stands in for a store
    """The history of a user that is not stored."""
    return Query()


class Engine:
    """An opened artefact that answers and learns.

    One lock goes round every call, so no answer is made of half an event or half an item; calls of several threads wait for each
    other. Kernels release the interpreter's lock, so other threads of the process run meanwhile. Arrays that are given back are the
    caller's own.

    Args:
        artefact: what the engine starts from.
        stored: the history of a user as far as `apply` was called with its events, or had been counted when the artefact was made. It is
            asked for when the user is not in the cache.
        cache_bytes: most memory of the users in the cache.
        arithmetic: of weights that are kept in int8: int8 where the processor has it, or float32.
        large: of a catalogue of more items only candidates are scored (`nightloom.serving.model.retrieval`).
    """

    def __init__(
        self,
        artefact: Artefact,
        stored: Callable[[str], Query] = nobody,
        cache_bytes: int = CACHE_BYTES,
        arithmetic: Arithmetic = "int8",
        large: int = LARGE,
    ) -> None:
        said, arrays, scorers, new = artefact.manifest, *(artefact.arrays(name) for name in (NETWORK, SCORERS, NEW_ITEMS))
        self.artefact, self._stored, self._lock = artefact, stored, threading.RLock()
        self.names, self.clock = artefact.event_names, artefact.clock
        self.max_history: int = said.model["max_history"]
        self.exploration: float = said.model.get("exploration", 0.0)  # artefacts of before have none
        self.net = network_of(arrays, int8=arithmetic == "int8")
        self.catalogue = LiveCatalogue(artefact.catalogue["item_id"], rows_of(arrays), arrays["mean"], arrays["covariance"])
        self.members: dict[str, Member] = members_of({name: part(scorers, name) for name in said.scorers}, said.scorers)
        self.estimator = Estimator() if artefact.explainer is None else Estimator.of(artefact.explainer)
        self._maker = ItemMaker(new, said.features)
        neighbours = said.scorers.get("text_neighbours", {}).get("neighbours", NEIGHBOURS)
        self._texts = TextSpace(new, neighbours) if "neighbours.unit" in new else None
        self.fresh = FreshItems()
        self._reranker, self._labels = _heads(artefact)
        self.penalty = Penalty.of(part(scorers, PENALTY))
        self._ranker = Ranker(self.catalogue, self.members, said.weights, said.newcomer_weights, self._reranker, self.penalty)
        if len(self.catalogue) > large:
            self._ranker.retrieval = self._index(said.weights)
        self.users = UserCache(self._load, cache_bytes)

    @classmethod
    def open(
        cls,
        folder: Path,
        stored: Callable[[str], Query] = nobody,
        cache_bytes: int = CACHE_BYTES,
        arithmetic: Arithmetic = "int8",
        large: int = LARGE,
    ) -> Self:
        """Open an artefact; arguments as of the class.

        Raises:
            InputError: the folder is no artefact, it is damaged, or of another format.
        """
        return cls(Artefact.open(folder), stored, cache_bytes, arithmetic, large)

    @property
    def item_index(self) -> dict[str, int]:
        """Dense id by item id, items that came by day, and removed ones, included."""
        return self.catalogue.index

    @property
    def item_ids(self) -> list[str]:
        """Item id by dense id."""
        return self.catalogue.ids

    @property
    def reranked(self) -> bool:
        """Whether scores are log-odds of an interaction; without a re-ranker they are fused scores, of one query alone."""
        return self._reranker is not None

    @property
    def rounds(self) -> bool:
        """Whether the encoder multiplies in int8, so that scores are near those of float32 and not equal."""
        return isinstance(self.net.kv, Packed)

    @property
    def labelled(self) -> bool:
        """Whether there are probabilities that an item is liked."""
        return self._labels is not None

    @property
    def text_dim(self) -> int:
        """Width of the text vectors that new items come with; 0 where the model reads no texts."""
        return self._maker.shapes.get("text", (0,))[0]

    def recommend(
        self,
        query: Query,
        k: int,
        *,
        exclude_seen: bool = True,
        allowed: NDArray[np.bool_] | None = None,
        candidates: NDArray[np.int64] | None = None,
        lift: FloatArray | None = None,
        also: Others | None = None,
    ) -> Answer:
        """The k best items for a query.

        Args:
            query: the history and the request.
            k: how many.
            exclude_seen: leave out items of the history.
            allowed: bool [items] by dense id: the others are never recommended. It may be shorter than the catalogue, by items that have
                come since it was made; they are not allowed then. None: all.
            candidates: int64 [m], dense items: only these are ranked. None: the whole catalogue.
            lift: float32 [items] by dense id: added to the scores, by which items are ranked and which are given back. None: nothing.
            also: is told the k best, and gives dense items that came by day. Those that may be recommended follow the k best, in no
                order, with the scores that they have in this list. Not with `candidates`. None: nothing.

        Raises:
            InputError: a list of the query does not match its history, or the model does not know an event name.
        """
        with self._lock:
            histories = self._read(query)
            return self._ranker.rank(histories, self._vector(histories), k, exclude_seen, allowed, candidates, lift, also)

    def recommend_user(
        self,
        user: str,
        k: int,
        *,
        now: int | None = None,
        friends: Sequence[Sequence[str]] = (),
        exclude_seen: bool = True,
        allowed: NDArray[np.bool_] | None = None,
        candidates: NDArray[np.int64] | None = None,
        lift: FloatArray | None = None,
        also: Others | None = None,
    ) -> Answer:
        """The k best items for a stored user, from cached keys and values; the rest as in `recommend`.

        Args:
            user: the user's key.
            k: how many.
            now: seconds since 1970, of the request; the time of the user's latest event where that is later. None: as `Clock` says.
            friends: histories, item ids oldest first, of the users that this one is linked to.
            exclude_seen: see `recommend`.
            allowed: see `recommend`.
            candidates: see `recommend`.
            lift: see `recommend`.
            also: see `recommend`.
        """
        with self._lock:
            histories, vector = self._of_user(user, now)
            if friends:
                histories = replace(histories, links=self._read(Query(friends=friends)).links)
            return self._ranker.rank(histories, vector, k, exclude_seen, allowed, candidates, lift, also)

    def label_probabilities(self, query: Query, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities, by the label head, that items are liked (clicked, bought) once they are shown, float64 [items].

        Raises:
            InputError: the model has no calibrated label head, or as in `recommend`.
        """
        with self._lock:
            histories = self._read(query)
            return self._label_head().probabilities(histories, self._vector(histories), taken(self.catalogue.rows, items), items)

    def label_probabilities_of_user(self, user: str, items: NDArray[np.int64], *, now: int | None = None) -> NDArray[np.float64]:
        """The same for a stored user; `now` as in `recommend_user`."""
        with self._lock:
            histories, vector = self._of_user(user, now)
            return self._label_head().probabilities(histories, vector, taken(self.catalogue.rows, items), items)

    def coalitions(self, query: Query | str, *, now: int | None = None, allowed: NDArray[np.bool_] | None = None) -> Coalitions:
        """Scores of the catalogue for coalitions of a history's events, as the engine is now; any one thread may use it afterwards.

        Args:
            query: the history and the request, or the key of a stored user.
            now: of a stored user's request, as in `recommend_user`.
            allowed: as in `recommend`.

        Raises:
            InputError: as in `recommend`.
        """
        with self._lock:
            if isinstance(query, str):
                one = self.users.get(query)
                histories = one.histories(self._time_of(one, now))
            else:
                histories = self._read(query)
            return self.coalitions_of(histories, allowed)

    def coalitions_of(self, histories: Histories, allowed: NDArray[np.bool_] | None = None) -> Coalitions:
        """As `coalitions`, of one history of dense items."""
        ranker = self._ranker
        weights = (ranker.weights, ranker.newcomer_weights)
        model = (self.net, self.max_history, self.catalogue, self.members, *weights, self._reranker)
        return Coalitions(*model, histories, allowed, self._lock, None if self.penalty is None else self.penalty.values)

    def similar(self, items: Sequence[int] | NDArray[np.int64], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Answer:
        """The k items nearest to some others: cosine of item vectors, averaged over the others, which are left out.

        Args:
            items: dense items, one at least.
            k: how many.
            allowed: as in `recommend`.
        """
        with self._lock:
            vectors, seeds = self.catalogue.vectors, np.asarray(items, dtype=np.int32)
            lengths = np.maximum(np.linalg.norm(vectors, axis=1), np.float32(1e-12))
            mean = (vectors[seeds] / lengths[seeds, None]).mean(0)
            cosines = (vectors @ mean / lengths).astype(np.float32)
            return best_of(cosines, self.catalogue.everything, self.catalogue.open_to(allowed), seeds, k)

    def apply(self, user: str, item: str, event: int, time: int, *, positive: bool) -> bool:
        """Learn from an event that has happened: graph, popularity, trend, counters, and what is cached of the user.

        Afterwards graph, popularity and counters are those of a model that is fitted anew on all events; trend counts the event as one of
        the last day of training. Co-occurrence and `linear` stay as they are until `renew`, factors of items and weights until the next
        night. Events may come late: each takes its place in time.

        Args:
            user: the user's key.
            item: item id.
            event: code of the event name, by `names`.
            time: seconds since 1970; it does not count where the model's data have no times.
            positive: whether the event is positive.

        Returns:
            Whether the item is in the catalogue; else nothing was done.
        """
        with self._lock:
            dense = self.catalogue.index.get(item)
            if dense is None:
                return False
            one, moment = self.users.get(user), time if self.clock.has_time else 0
            place = one.insert(dense, event, moment, positive=positive, seen=bool(self.names.seen[event]))
            self._count(one, place, 1)
            if one.keys is not None:  # whoever was asked about once is asked about again: the next answer waits for one token
                one.encode(self.net, self.catalogue.rows, self.max_history)
            self.users.measure(user)
            return True

    def retract(self, user: str, item: str, event: int, time: int) -> bool:
        """Take an event back that `apply` was called with, or that the artefact counts; false where the user has no such event."""
        with self._lock:
            one, dense = self.users.get(user), self.catalogue.index.get(item, -1)
            place = one.find(dense, event, time if self.clock.has_time else 0)
            if place < 0:
                return False
            self._count(one, place, -1)
            one.remove(place)
            self.users.measure(user)
            return True

    def check_item(self, item: NewItem) -> None:
        """Refuse what `put_item` would, and change nothing.

        Raises:
            InputError: as there.
        """
        self._maker.check(item)
        self._maker.vector(item)

    def put_item(self, item: NewItem) -> int:
        """Take an item into the catalogue, or back into it, and give its dense id; nothing is rebuilt.

        An item that training knew keeps its vector, whatever its columns say now. One that came by day gets the vector that its text,
        picture and columns make without an id, and the popularity and factors that are expected of it by its text.

        Raises:
            InputError: a vector does not fit the model's encoder, or what stands in a column of numbers is none.
        """
        with self._lock:
            self._maker.check(item)
            dense, fresh = self.catalogue.put(item.item_id, self._maker.vector(item))
            if fresh:
                for member in self.members.values():
                    member.append()
                for counters in self._all_counters():
                    counters.append()
                if self.penalty is not None:
                    self.penalty.append()
            elif dense >= self.catalogue.trained:
                self.users.forget()
            edges = self.members.get("text_neighbours")
            if self._texts is not None and dense >= self.catalogue.trained:
                near = self._texts.put(dense, item.text, edges.edges if isinstance(edges, ItemEdges) else None)
                self.fresh.put(dense, *near)
                if isinstance(edges, ItemEdges):
                    edges.base.set(dense, int(item.text is not None))
                for member in self.members.values():
                    if isinstance(member, Factors | Popularity):
                        member.expect(dense, *near)
            return dense

    def remove_item(self, item_id: str) -> bool:
        """Recommend an item no more; histories may still hold it. False where there is none of the id."""
        with self._lock:
            self.fresh.remove(self.catalogue.index.get(item_id, -1))
            return self.catalogue.remove(item_id)

    @property
    def has_new(self) -> bool:
        """Whether items came by day that are hardly known yet."""
        return bool(self.fresh)

    def near_new(self, query: Query | str, shown: Sequence[int]) -> Sequence[int]:
        """Items that came by day and have texts near to those of a history's latest events, or of other items; the nearest first.

        Args:
            query: the history, or the key of a stored user.
            shown: the other items, dense.
        """
        with self._lock:
            events = self.users.get(query).items if isinstance(query, str) else self._read(query).items
            return self.fresh.nearest([*events[-LATEST:].tolist(), *shown])

    def renew(self, scorer: str, arrays: Mapping[str, NDArray[Any]], fresh: Sequence[str]) -> None:
        """Take the edges of a scorer that was fitted anew (`nightloom.serving.rebuild`).

        Args:
            scorer: its name.
            arrays: `offsets`, `targets`, `weights`, `popularity`, over the items that training knew and behind them the fresh ones.
            fresh: ids of items that came by day.

        Raises:
            InputError: the model has no such scorer, or another catalogue.
        """
        catalogue, member = self.catalogue, self.members.get(scorer)
        if not isinstance(member, ItemEdges) or len(arrays["popularity"]) != catalogue.trained + len(fresh):
            raise InputError(f"{scorer}: the edges are not of this model's catalogue.")
        with self._lock:
            rows = np.full(len(catalogue), -1, dtype=np.int64)
            rows[: catalogue.trained] = np.arange(catalogue.trained)
            for place, item in enumerate(fresh, catalogue.trained):
                if (dense := catalogue.index.get(item)) is not None:
                    rows[dense] = place
        made = member.refitted(arrays, rows)  # a second of a large catalogue, in which answers go on
        with self._lock:
            for _ in range(len(catalogue) - len(rows)):
                made.append()
            member.become(made)

    def block_item(self, dense: int, *, blocked: bool) -> None:
        """Say whether an item may not be shown, whatever else is said of it."""
        with self._lock:
            self.catalogue.block(dense, blocked)

    def warm_user(self, user: str) -> bool:
        """Load and encode a stored user, as one who was asked about before all that are in the cache; false where there is no room."""
        with self._lock:
            here = self.users.peek(user)
            one = self._load(user) if here is None else here
            one.encode(self.net, self.catalogue.rows, self.max_history)
            if here is None:
                return self.users.offer(user, one)
            self.users.measure(user)
            return True

    def cached_users(self) -> list[str]:
        """Users in the cache, the most recent first."""
        with self._lock:
            return self.users.recent()

    def forget_user(self, user: str) -> None:
        """Let a user go from the cache: the next call asks the store."""
        with self._lock:
            self.users.drop(user)

    def forget_users(self) -> None:
        """Let all users go from the cache."""
        with self._lock:
            self.users.clear()

    def _read(self, query: Query) -> Histories:
        return build_histories([query], self.catalogue.index, self.names, self.clock)

    def _vector(self, histories: Histories) -> FloatArray:
        """User vector of one history, float32 [dim]."""
        tokens = tokens_of(histories, self.max_history, timed=len(self.net.gaps) > 0)
        return user_vector(self.net, self.catalogue.rows, tokens)

    def _index(self, weights: Mapping[str, float]) -> Retrieval:
        """What finds candidates of a large catalogue."""
        trials, reranker = trials_of(self.catalogue.vectors, self._vector), self._reranker
        unit = 1.0 if reranker is None else reranker.fallback.slope
        return Retrieval(self.catalogue, self.members, weights, trials, self.penalty, unit, reranked=reranker is not None)

    def _of_user(self, user: str, now: int | None) -> tuple[Histories, FloatArray]:
        """A stored user's history and user vector at a request."""
        one = self.users.get(user)
        asked = self._time_of(one, now)
        vector = one.vector(self.net, self.catalogue.rows, self.max_history, asked)
        self.users.measure(user)
        return one.histories(asked), vector

    def _label_head(self) -> LabelHead:
        if self._labels is None:
            raise InputError("the model gives no probabilities: train it with training.label_weight on events that are positive or not.")
        return self._labels

    def _load(self, user: str) -> StoredUser:
        query = self._stored(user)
        return StoredUser(self._read(query), timed=self.clock.has_time and (query.times is not None or not len(query.history)))

    def _time_of(self, one: StoredUser, now: int | None) -> int:
        if not one.timed:
            return 0
        latest = int(one.times[-1]) if len(one.times) else 0
        asked = None if now is None else max(now, latest)
        return self.clock.time_of(Query(times=[latest], request_time=asked), int(clock.time()))

    def _count(self, one: StoredUser, place: int, sign: int) -> None:
        """Count an event of a user's history, or take it back."""
        item, time, positive = int(one.items[place]), int(one.times[place]), bool(one.positive[place])
        self.fresh.count(item, sign)
        for member in self.members.values():
            if isinstance(member, Graph):
                member.change(one.items, one.positive, place, sign)
            elif isinstance(member, Popularity) and positive:
                member.count(item, time, sign)
        if self._ranker.retrieval is not None:
            self._ranker.retrieval.counted(item)
        for counters in self._all_counters():
            if positive or (self._labels is not None and counters is self._labels.shown):
                (counters.add if sign > 0 else counters.take_back)(item, time)

    def _all_counters(self) -> list[LiveCounters]:
        of_reranker = [] if self._reranker is None else [self._reranker.counters]
        return of_reranker if self._labels is None else [*of_reranker, self._labels.shown, self._labels.positive]


def _heads(artefact: Artefact) -> tuple[Reranker | None, LabelHead | None]:
    """The heads that an artefact has."""
    said, reranker, labels = artefact.manifest, None, None
    if said.reranker is not None:
        arrays = artefact.arrays(RERANKER)
        reranker = Reranker(arrays, said.reranker, LiveCounters(part(arrays, "counters")))
    if said.labels is not None:
        arrays = artefact.arrays(LABELS)
        labels = LabelHead(arrays, said.labels, *(LiveCounters(part(arrays, name)) for name in ("shown", "positive")))
    return reranker, labels
