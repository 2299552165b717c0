"""Scorers without a table of the whole catalogue: what a history adds to which items, the scores of a few, and the moments of all."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightloom.core.moments import VectorMoments
from nightloom.core.sequences import Histories
from nightloom.serving.model.jit import kernel
from nightloom.serving.model.members import Factors, Friends, ItemEdges, Member, Popularity, Repeats
from nightloom.serving.model.scoring import usable

FloatArray = NDArray[np.float32]
Items = NDArray[np.int64]
MANY = 4
"""Items that can be ranked for each that is added to, above which one of the lowest is not added to: they differ by traces alone."""
NOTHING = np.zeros(0, dtype=np.int64)


class Stats(NamedTuple):
    """Sums over scores that every history starts from.

    Attributes:
        n: items.
        hidden: items that can not be ranked.
        total: of the others.
        squares: of the others.
        lowest: of the others; 0 without any.
    """

    n: int
    hidden: int
    total: float
    squares: float
    lowest: float


class Sparse(NamedTuple):
    """What a history makes of a scorer.

    Attributes:
        items: int64 [m], distinct, that it adds to.
        added: float32 [m].
        line: float64 [3]: mean over the catalogue, one over the standard deviation, lowest score.
        query: float32 [factors + 1], of a scorer of factors; else of length 0.
    """

    items: Items
    added: FloatArray
    line: NDArray[np.float64]
    query: FloatArray


class SparseScorer:
    """A member of the fusion, asked for a few items.

    Args:
        member: one of those of `nightloom.serving.model.members`.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self._sums: FloatArray | None = None
        self._known: Stats | None = None
        self._version = -1
        self._moments = VectorMoments(member.rows) if isinstance(member, Factors) else None

    def of(self, histories: Histories, n: int) -> Sparse:
        """The scorer for one history over a catalogue of n items."""
        member, nothing = self.member, np.zeros(0, np.float32)
        if isinstance(member, Factors):
            query = member.query(histories)
            return Sparse(NOTHING, nothing, self._factor_line(query, n), query)
        items, added = self._added(histories, n)
        base = self.base(n)
        stats = self._stats(base)
        before = base[items].astype(np.float64)
        finite = np.isfinite(before)
        more, before = added[finite].astype(np.float64), before[finite]
        lowest = stats.lowest if stats.n - stats.hidden > MANY * len(more) else _lowest(base, items, added)
        mean = (stats.total + more.sum() + stats.hidden * lowest) / n
        squares = stats.squares + (more * (2 * before + more)).sum() + stats.hidden * lowest**2
        std = float(np.sqrt(max(squares / n - mean**2, 0.0)))
        return Sparse(items, added, np.array([mean, usable(mean, std), lowest]), nothing)

    def at(self, found: Sparse, pool: Items, n: int) -> FloatArray:
        """Scores of some items, ascending and all that the history adds to among them, float32 [m]; -inf where one can not be ranked."""
        if isinstance(self.member, Factors):
            return self.member.rows[pool] @ found.query
        scores: FloatArray = self.base(n)[pool]
        scores[np.searchsorted(pool, found.items)] += found.added
        return scores

    def base(self, n: int) -> FloatArray:
        """Scores that every history starts from, float32 [n]."""
        member = self.member
        if isinstance(member, ItemEdges):
            return member.base.values
        if isinstance(member, Popularity):
            return member.values
        if self._sums is None or len(self._sums) < n:
            self._sums = np.zeros(n + 1024, np.float32)
        return self._sums[:n]

    def _added(self, histories: Histories, n: int) -> tuple[Items, FloatArray]:
        member = self.member
        if isinstance(member, ItemEdges):
            if self._sums is None or len(self._sums) < n:
                self._sums = np.zeros(n + 1024, np.float32)
            edges = member.edges
            kept = (edges.start, edges.length, edges.targets, edges.weights)
            return _edge_sums(*kept, histories.items, member.decay, member.shrink, self._sums)
        if isinstance(member, Repeats):
            items, counts = np.unique(histories.items[histories.positive], return_counts=True)
            return items.astype(np.int64), np.log1p(counts).astype(np.float32)
        if isinstance(member, Friends):
            keys, values = member.summands(histories, n)
            items, place = np.unique(keys, return_inverse=True)
            return items.astype(np.int64), np.bincount(place, values, minlength=len(items)).astype(np.float32)
        return NOTHING, np.zeros(0, np.float32)

    def _stats(self, base: FloatArray) -> Stats:
        member = self.member
        if isinstance(member, Repeats | Friends):
            return Stats(len(base), 0, 0.0, 0.0, 0.0)
        version = member.base.version if isinstance(member, ItemEdges) else member.version  # type: ignore[attr-defined]
        if self._known is None or version != self._version:
            self._known, self._version = Stats(*_sums_of(base)), version
        return self._known

    def _factor_line(self, query: FloatArray, n: int) -> NDArray[np.float64]:
        """Moments in closed form of what training knew, and those of items that came by day."""
        if not isinstance(self.member, Factors) or self._moments is None:
            raise TypeError(f"{type(self.member).__name__} has no factors")
        before, trained = self._moments(query[None]), self.member.trained
        mean, std = float(before.mean[0]), float(before.std[0])
        fresh = (self.member.rows[trained:n] @ query).astype(np.float64)
        squares = (trained * (std**2 + mean**2) + np.square(fresh).sum()) / n
        mean = (trained * mean + fresh.sum()) / n
        return np.array([mean, usable(mean, float(np.sqrt(max(squares - mean**2, 0.0)))), 0.0])


@kernel
def _edge_sums(start: Any, length: Any, targets: Any, weights: Any, items: Any, decay: Any, shrink: Any, sums: Any) -> Any:
    """As `nightloom.serving.model.scoring.follow_edges`, of the items alone that edges lead to; `sums`, float32 [n], is left zero."""
    events, room = len(items), 0
    for age in range(min(events, len(decay))):
        room += length[items[events - 1 - age]]
    touched, many = np.empty(room, np.int64), 0
    for age in range(min(events, len(decay))):
        item = items[events - 1 - age]
        factor = decay[age]
        if len(shrink):
            factor *= shrink[item]
        for at in range(start[item], start[item] + length[item]):
            gain = factor * max(weights[at], np.float32(0))
            if gain > 0:
                if sums[targets[at]] == 0:
                    touched[many] = targets[at]
                    many += 1
                sums[targets[at]] += gain
    added = np.empty(many, np.float32)
    for place in range(many):
        item = touched[place]
        added[place] = sums[item] * shrink[item] if len(shrink) else sums[item]
        sums[item] = 0
    return touched[:many], added


def _lowest(base: FloatArray, items: Items, added: FloatArray) -> float:
    """The lowest score that is finite."""
    scores = base.copy()
    scores[items] += added
    return float(scores.min(where=np.isfinite(scores), initial=np.inf)) if np.isfinite(scores).any() else 0.0


@kernel
def _sums_of(base: Any) -> Any:
    """Fields of `Stats`."""
    hidden, total, squares, lowest = 0, 0.0, 0.0, np.float32(np.inf)
    for j in range(len(base)):
        if base[j] > np.float32(-np.inf):
            total += base[j]
            squares += np.float64(base[j]) * base[j]
            lowest = min(lowest, base[j])
        else:
            hidden += 1
    return len(base), hidden, total, squares, np.float64(lowest) if hidden < len(base) else 0.0
