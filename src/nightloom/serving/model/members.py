"""The scorers as the service keeps them: they score one history, take items, and learn from events where they can.

They score as their namesakes in `nightloom.models.scorers`. Graph, popularity and trend count every event. Co-occurrence and `linear` do
not, since one event of a long history changes hundreds of pairs: their edges are built anew (`nightloom.serving.rebuild`) and put in place
of the old. The factors of `als` stay as the night left them; those of a history are solved for when it is asked about, so every event of it
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import gather, offsets_of, spans
from nightloom.core.sequences import Histories
from nightloom.models.scorers.als import ALS
from nightloom.models.scorers.friends import Friends as FriendVotes
from nightloom.models.scorers.item_graph import TRACE
from nightloom.models.scorers.newcomers import expected
from nightloom.models.scorers.trend import weight_of
from nightloom.serving.items.growing import EdgeRows, Growing
from nightloom.serving.model.least_squares import solve_history
from nightloom.serving.model.scoring import follow_edges

FloatArray = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
NO_SHRINK = np.zeros(0, dtype=np.float32)
AT_ONCE = 250_000
"""Edges of a refit that are copied at a time: numpy keeps other threads of the process waiting for so long."""
ROUNDING = 1e-9
"""Share of an event that rounding of many may have left or taken."""


class Member(Protocol):
    """What is fused with the network's scores."""

    def score(self, histories: Histories, out: FloatArray) -> None:
        """Write the scores of the whole catalogue for one history to float32 [n]; -inf where an item can not be ranked."""

    def append(self) -> None:
        """Take an item of which nothing is known."""


class Base:
    """Trace of popularity that every history starts from; -inf for items without a count. See `ItemGraph`.

    Args:
        counts: int64 [n].
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self._counts, self._values = Growing(counts), Growing(np.zeros(len(counts), dtype=np.float32))
        self._most, self.version = 0, 0
        self._refill()

    @property
    def values(self) -> FloatArray:
        """float32 [n]. Whenever one changes, so does `version`."""
        return self._values.array

    def append(self) -> None:
        """Take an item without a count."""
        self.version += 1
        self._counts.append(0)
        self._values.append(-np.inf)

    def count(self, item: int, change: int) -> None:
        """Change the count of an item."""
        self.version += 1
        counts = self._counts.array
        counts[item] += change
        if counts[item] > self._most or (change < 0 and counts[item] + 1 == self._most):
            self._refill()
        else:
            self.values[item] = TRACE * counts[item] / self._most if counts[item] > 0 else -np.inf

    def set(self, item: int, count: int) -> None:
        """Set the count of an item."""
        self.count(item, count - int(self._counts.array[item]))

    def _refill(self) -> None:
        counts = self._counts.array
        self._most = max(int(counts.max(initial=0)), 1)
        self.values[:] = np.where(counts > 0, TRACE * counts / self._most, -np.inf)


class ItemEdges:
    """Scorers `cooccurrence`, `linear` and `text_neighbours`: edges that events do not change.

    Args:
        arrays: `offsets`, `targets`, `weights`, `popularity`.
        settings: `recency` and `memory`.
    """

    def __init__(self, arrays: Arrays, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self.edges = EdgeRows(arrays["offsets"], arrays["targets"], arrays["weights"])
        self.base = Base(arrays["popularity"])
        self.decay = np.power(settings["recency"], np.arange(settings["memory"]), dtype=np.float64).astype(np.float32)

    @property
    def shrink(self) -> FloatArray:
        """Factor of each item as source and as target, float32 [n]; of length 0 where there is none."""
        return NO_SHRINK

    def refitted(self, arrays: Arrays, rows: NDArray[np.int64]) -> ItemEdges:
        """The same scorer with the edges of a refit.

        Args:
            arrays: as of the class, over the catalogue of the refit: of m items.
            rows: int64 [n], the item of the refit that each of this catalogue is; -1 where it did not know the item.
        """
        known, offsets = rows >= 0, arrays["offsets"]
        places = np.full(len(arrays["popularity"]), -1, dtype=np.int32)
        places[rows[known]] = np.flatnonzero(known)
        lengths = np.where(known, np.diff(offsets)[rows], 0)
        first_of = offsets_of(lengths)
        targets, weights = np.empty(first_of[-1], np.int32), np.empty(first_of[-1], np.float32)
        for first, last in spans(first_of, AT_ONCE):
            edge, here = gather(offsets[rows[first:last]], lengths[first:last]), slice(first_of[first], first_of[last])
            found = places[arrays["targets"][edge]]
            targets[here] = np.maximum(found, 0)
            weights[here] = np.where(found < 0, 0, arrays["weights"][edge])  # to what is not in the catalogue
        popularity = np.where(known, arrays["popularity"][rows], 0)
        return ItemEdges({"offsets": first_of, "targets": targets, "weights": weights, "popularity": popularity}, self._settings)

    def become(self, other: ItemEdges) -> None:
        """Take another one's edges and counts."""
        other.base.version = self.base.version + 1
        self.edges, self.base = other.edges, other.base

    def score(self, histories: Histories, out: FloatArray) -> None:
        """See `Member`."""
        edges = self.edges
        kept = (edges.start, edges.length, edges.targets, edges.weights)
        follow_edges(*kept, histories.items, self.decay, self.shrink, self.base.values, out)

    def append(self) -> None:
        """See `Member`."""
        self.edges.append()
        self.base.append()


class Graph(ItemEdges):
    """Scorer `graph` with its raw counts: what was divided by popularity at night is divided here, when it is asked.

    Args:
        arrays: `offsets`, `targets`, `weights` (not divided), `popularity`, `seen`.
        settings: of `nightloom.models.scorers.graph.TransitionGraph`.
    """

    def __init__(self, arrays: Arrays, settings: Mapping[str, Any]) -> None:
        super().__init__(arrays, settings)
        self.reach, self.step_decay, self.backward = int(settings["reach"]), settings["decay"], settings["backward"]
        self._seen = Growing(arrays["seen"])
        self._shrink = Growing((1 / np.sqrt(np.maximum(arrays["seen"], 1))).astype(np.float32))

    @property
    def shrink(self) -> FloatArray:
        """One over the square root of how often an item was seen, float32 [n]."""
        return self._shrink.array

    def append(self) -> None:
        """See `Member`."""
        super().append()
        self._seen.append(0)
        self._shrink.append(1)

    def change(self, items: NDArray[np.int32], positive: NDArray[np.bool_], place: int, sign: int) -> None:
        """Count an event of a history, or take it back.

        Args:
            items: int32 [events], the history with the event in it.
            positive: bool [events].
            place: of the event.
            sign: 1 or -1.
        """
        item = int(items[place])
        seen = self._seen.array
        seen[item] += sign
        self.shrink[item] = 1 / np.sqrt(max(int(seen[item]), 1))
        if positive[place]:
            self.base.count(item, sign)
        first = max(place - self.reach, 0)
        near, liked = items[first : place + self.reach + 1].tolist(), positive[first : place + self.reach + 1].tolist()
        here = place - first
        steps: list[tuple[int, int, float]] = []  # source, target, gain
        for earlier in range(len(near)):
            for later in range(earlier + 1, min(earlier + self.reach + 2, len(near))):
                gain = 0.0
                if here in (earlier, later):
                    gain = self._gain(later - earlier)
                elif earlier < here < later:  # the event moves these two one step apart
                    gain = self._gain(later - earlier) - self._gain(later - earlier - 1)
                if gain and near[earlier] != near[later]:
                    steps += [(near[earlier], near[later], gain)] if liked[later] else []
                    steps += [(near[later], near[earlier], gain * self.backward)] if liked[earlier] else []
        if steps:
            sources, targets, gains = zip(*steps, strict=True)
            self.edges.add(np.array(sources), np.array(targets), sign * np.array(gains, dtype=np.float32))

    def _gain(self, steps: int) -> float:
        return float(self.step_decay ** (steps - 1)) if steps <= self.reach else 0.0


class Popularity:
    """Scorer `popularity`: log(1 + positive events), or what is expected of an item without any.

    An item that comes by day scores at least as expected until the next night: its first event must not take it down.

    Args:
        counts: [n], how much an item's events count together.
        expected: float32 [n], scores of items without positive events.
    """

    def __init__(self, counts: NDArray[Any], expected: FloatArray) -> None:
        self._counts, self._expected, self._trained = Growing(counts), Growing(expected), len(counts)
        self._by_night = np.log1p(counts)
        self._values = Growing(np.where(counts > 0, self._by_night, expected).astype(np.float32))
        self.version = 0

    @property
    def values(self) -> FloatArray:
        """float32 [n]. Whenever one changes, so does `version`."""
        return self._values.array

    def score(self, histories: Histories, out: FloatArray) -> None:  # noqa: ARG002  # the same for all
        """See `Member`."""
        out[:] = self.values

    def append(self) -> None:
        """See `Member`."""
        self.version += 1
        for one in (self._counts, self._expected, self._values):
            one.append(0)

    def expect(self, item: int, neighbours: NDArray[np.int64], cosines: FloatArray) -> None:
        """Expect of an item that came by day what the night knew of others (`nightloom.models.scorers.newcomers`).

        Events that came since do not count: workers hear of them and of items in different orders.
        """
        self._expected.array[item] = expected(cosines, self._by_night[neighbours, None])[0]
        self._change(item, 0)

    def count(self, item: int, time: int, sign: int) -> None:  # noqa: ARG002  # an event of any time counts the same
        """Count an event of some time, in seconds since 1970, or take it back.

        Args:
            item: dense id.
            time: of the event.
            sign: 1 or -1.
        """
        self._change(item, sign)

    def _change(self, item: int, change: float) -> None:
        self.version += 1
        self._counts.array[item] += change
        many, least = self._counts.array[item], self._expected.array[item]
        own = np.log1p(many)
        self._values.array[item] = (own if many > 0 else least) if item < self._trained else max(own, least)


class Trend(Popularity):
    """Scorer `trend`: the same of events that count the less the longer ago they are.

    Args:
        counts: float64 [n], weighted.
        expected: as for `Popularity`.
        settings: of `nightloom.models.scorers.trend.Trend`.
    """

    def __init__(self, counts: NDArray[np.float64], expected: FloatArray, settings: Mapping[str, Any]) -> None:
        super().__init__(counts, expected)
        self._day, self._half_life = int(settings["day"]), float(settings["half_life"])

    def count(self, item: int, time: int, sign: int) -> None:
        """See `Popularity`."""
        weight, counts = float(weight_of(np.array(time), self._day, self._half_life)), self._counts.array
        nothing = sign < 0 and counts[item] <= (1 + ROUNDING) * weight  # what rounding leaves is no event
        self._change(item, -counts[item] if nothing else sign * weight)


class Repeats:
    """Scorer `repeats`: log(1 + positive events on the item in the history)."""

    def score(self, histories: Histories, out: FloatArray) -> None:
        """See `Member`."""
        out[:] = np.log1p(np.bincount(histories.items[histories.positive], minlength=len(out)).astype(np.float32))

    def append(self) -> None:
        """See `Member`."""


class Friends:
    """Scorer `friends`: votes of the friends whose histories come with the query."""

    def __init__(self) -> None:
        self._votes = FriendVotes()

    def score(self, histories: Histories, out: FloatArray) -> None:
        """See `Member`."""
        out[:] = np.bincount(*self.summands(histories, len(out)), minlength=len(out))

    def summands(self, histories: Histories, n: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Items that votes are given for, often the same, and the votes, over a catalogue of n items."""
        self._votes.n_items = n
        found = self._votes.summands(histories)
        return found.keys, found.values

    def append(self) -> None:
        """See `Member`."""


class Factors:
    """Scorer `als`: item factors that events do not change, asked by a history's factors.

    An item that comes by day has those that are expected of it by its text. Without any it scores 0, counts in mean and spread, and as an
    event it only ages the others.

    Args:
        arrays: `vectors`, float32 [n, factors + 1], the last column the trace of popularity, and `gram`, float32 [factors, factors].
        settings: of `nightloom.models.scorers.als.ALS`.
    """

    def __init__(self, arrays: Arrays, settings: Mapping[str, Any]) -> None:
        self.solver = ALS(**settings)
        self._vectors, self.trained = Growing(arrays["vectors"]), len(arrays["vectors"])
        self.solver.vectors, self.solver.gram = self._vectors.array, arrays["gram"]
        self._decay = np.power(self.solver.recency, np.arange(self.solver.memory)).astype(np.float32)

    @property
    def rows(self) -> FloatArray:
        """Item factors and the trace of popularity, float32 [n, factors + 1]; 0 for items that came by day, those from `trained` on."""
        return self._vectors.array

    def score(self, histories: Histories, out: FloatArray) -> None:
        """See `Member`."""
        np.matmul(self.rows, self.query(histories), out=out)

    def query(self, histories: Histories) -> FloatArray:
        """Factors of a history, and a 1 for the trace of popularity, float32 [factors + 1]."""
        vectors, items = self._vectors.array, histories.items[histories.positive]
        user = np.ones(vectors.shape[1], np.float32)
        solve_history(vectors, self.solver.gram, items[max(len(items) - len(self._decay), 0) :], self._decay, user)
        return user

    def append(self) -> None:
        """See `Member`."""
        self._vectors.append(0)
        self.solver.vectors = self._vectors.array

    def expect(self, item: int, neighbours: NDArray[np.int64], cosines: FloatArray) -> None:
        """As in `Popularity`."""
        vectors = self._vectors.array
        vectors[item, :-1] = expected(cosines, vectors[neighbours, :-1])


def members_of(arrays: Mapping[str, Arrays], settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Member]:
    """The scorers of an artefact by name.

    Args:
        arrays: scorer -> its arrays.
        settings: scorer -> its settings, one for each scorer that has a weight.
    """
    makers: dict[str, Callable[[], Member]] = {
        "graph": lambda: Graph(arrays["graph"], settings["graph"]),
        "cooccurrence": lambda: ItemEdges(arrays["cooccurrence"], settings["cooccurrence"]),
        "linear": lambda: ItemEdges(arrays["linear"], settings["linear"]),
        "text_neighbours": lambda: ItemEdges(arrays["text_neighbours"], settings["text_neighbours"]),
        "popularity": lambda: Popularity(arrays["popularity"]["counts"], arrays["popularity"]["expected"]),
        "trend": lambda: Trend(arrays["trend"]["counts"], arrays["trend"]["expected"], settings["trend"]),
        "repeats": Repeats,
        "friends": Friends,
        "als": lambda: Factors(arrays["als"], settings["als"]),
    }
    return {name: makers[name]() for name in settings}
