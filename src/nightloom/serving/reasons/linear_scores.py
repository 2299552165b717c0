"""Scorers as sums of rows over the catalogue, for coalitions of one history's events.

What a coalition changes is how much each row counts. Moments over the catalogue are then closed forms of the rows' sums and products.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories, Links
from nightloom.models.scorers.friends import STRANGER
from nightloom.serving.model.least_squares import solve_coalitions
from nightloom.serving.model.members import Factors, Friends, ItemEdges, Member, Popularity, Repeats

FloatArray = NDArray[np.float32]
Masks = NDArray[np.bool_]
Coefficients = NDArray[np.float64]
Weigh = Callable[[Masks], Coefficients]


class LinearScores:
    """Scores of a scorer: coefficients [coalitions, rows] times rows [rows, items].

    Items that it can not rank count as its lowest score; a last row, 1 for these, has that score as its coefficient.

    Args:
        rows: float32 [rows, items]; whatever stands at hidden items does not count.
        weigh: coalitions, bool [n, events] -> float64 [n, rows].
        hidden: bool [items], which items it can not rank; the same for all coalitions.
        fixed: rows from here on count the same for all coalitions and hold no event; the lowest score is looked for with this.
    """

    def __init__(self, rows: FloatArray, weigh: Weigh, hidden: NDArray[np.bool_] | None = None, fixed: int | None = None) -> None:
        self._weigh, self._items = weigh, rows.shape[1]
        self._hides = hidden is not None and bool(hidden.any()) and not bool(hidden.all())
        ranked = rows
        if hidden is not None and hidden.any():
            ranked = rows[:, ~hidden]
            rows = np.where(hidden, np.float32(0), rows)
            rows = np.concatenate([rows, hidden[None].astype(np.float32)])
        self._ranked, self.rows = ranked.shape[1], rows
        self._extra = hidden is not None and bool(hidden.any())
        self._means = ranked.mean(1, dtype=np.float64) if self._ranked else np.zeros(len(ranked))
        apart = ranked - self._means.astype(np.float32)[:, None]
        rest = self._means - self._means.astype(np.float32)
        self._gram = (apart @ apart.T).astype(np.float64) / max(self._ranked, 1) - np.outer(rest, rest)
        if self._hides:
            self._lowest_of(ranked, len(ranked) if fixed is None else fixed)

    def _lowest_of(self, ranked: FloatArray, fixed: int) -> None:
        """Which items can have the lowest score: of those that no event reaches, one; of the others, those that begin below it."""
        reached = (ranked[:fixed] != 0).any(0)
        base = ranked[fixed:].sum(0)
        self._floor = float(base[~reached].min(initial=np.inf))
        self._low = np.ascontiguousarray(ranked[:, reached & (base < self._floor)])

    def coefficients(self, keep: Masks) -> Coefficients:
        """How much each row counts, float64 [coalitions, rows]."""
        found = self._weigh(keep)
        if not self._extra:
            return found
        lowest = np.zeros(len(keep))
        if self._hides:
            lowest = np.full(len(keep), self._floor)
            if self._low.shape[1]:
                lowest = np.minimum(lowest, (found.astype(np.float32) @ self._low).min(1))
        return np.column_stack([found, lowest])

    def moments(self, coefficients: Coefficients) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation over the catalogue, float64 [coalitions] each."""
        own = coefficients[:, :-1] if self._extra else coefficients
        mean, variance = own @ self._means, np.maximum(np.einsum("nr,nr->n", own @ self._gram, own), 0)
        if not self._extra:
            return mean, np.sqrt(variance)
        share, lowest = self._ranked / max(self._items, 1), coefficients[:, -1]
        whole = share * mean + (1 - share) * lowest
        variance = share * (variance + (mean - whole) ** 2) + (1 - share) * (lowest - whole) ** 2
        return whole, np.sqrt(variance)


def linear_scores(member: Member, history: Histories, items: int) -> LinearScores:
    """A scorer's scores for coalitions of a history.

    Args:
        member: the scorer.
        history: exactly one.
        items: of the catalogue.
    """
    if isinstance(member, ItemEdges):
        return _edges(member, history, items)
    if isinstance(member, Factors):
        return _factors(member, history)
    if isinstance(member, Repeats):
        return _repeats(history, items)
    links = history.links
    if isinstance(member, Friends) and links is not None:
        return _friends(links, history, items)
    if isinstance(member, Popularity | Friends):
        row = np.empty((1, items), np.float32)
        member.score(history, row[0])
        return LinearScores(row, lambda keep: np.ones((len(keep), 1)))
    raise TypeError(f"{type(member).__name__} has no coalitions: say in {__name__} what its scores are sums of")


def ages(keep: Masks) -> NDArray[np.int64]:
    """How many events of its coalition come after each event, int64 [coalitions, events]."""
    return np.cumsum(keep[:, ::-1], axis=1)[:, ::-1] - keep


def _edges(member: ItemEdges, history: Histories, items: int) -> LinearScores:
    shrink, base, decay = member.shrink, member.base.values, member.decay
    events = len(history.items)
    rows = np.zeros((events + 1, items), np.float32)
    for place, item in enumerate(history.items.tolist()):
        targets, weights = member.edges.row(item)
        rows[place, targets] = weights * (shrink[item] * shrink[targets]) if len(shrink) else weights
    rows[-1] = base

    def weigh(keep: Masks) -> Coefficients:
        age = ages(keep)
        found = np.where(keep & (age < len(decay)), decay[np.minimum(age, len(decay) - 1)], 0)
        return np.column_stack([found.astype(np.float64), np.ones(len(keep))])

    return LinearScores(rows, weigh, ~np.isfinite(base), events)


def _factors(member: Factors, history: Histories) -> LinearScores:
    """Factors of a coalition by its dual: with K = V G^-1 V' over its events, (1/c + K) a = 2 gives V'a, so that rows are products."""
    solver, events = member.solver, np.flatnonzero(history.positive)
    vectors, gram = solver.vectors, solver.gram.astype(np.float64)
    own = vectors[history.items[events], :-1].astype(np.float64)
    inverse = np.linalg.solve(gram, own.T)  # [factors, events]
    near, decay = own @ inverse, np.power(solver.recency, np.arange(solver.memory, dtype=np.float64))
    rows = np.concatenate([inverse.T.astype(np.float32) @ vectors[:, :-1].T, vectors[:, -1][None]])

    def weigh(keep: Masks) -> Coefficients:
        found = np.ones((len(keep), len(events) + 1))
        solve_coalitions(near, keep[:, events], decay, found[:, :-1])
        return found

    return LinearScores(rows, weigh)


def _repeats(history: Histories, items: int) -> LinearScores:
    counts, distinct = _counts(history)
    rows = np.zeros((len(distinct), items), np.float32)
    rows[np.arange(len(distinct)), distinct] = 1
    return LinearScores(rows, lambda keep: np.log1p(counts(keep)))


def _counts(history: Histories) -> tuple[Weigh, NDArray[np.int32]]:
    """How many positive events of a coalition are on each item, float64 [coalitions, distinct items], and these items."""
    events = np.flatnonzero(history.positive)
    distinct, which = np.unique(history.items[events], return_inverse=True)
    belongs = which[:, None] == np.arange(len(distinct))
    return lambda keep: keep[:, events].astype(np.float64) @ belongs, distinct


def _friends(links: Links, history: Histories, items: int) -> LinearScores:
    """One row a friend, 1 for each of its items; it counts as much as it is like the coalition (`nightloom.models.scorers.friends`)."""
    friends = links.known.take(links.friends)
    rows = np.zeros((len(friends), items), np.float32)
    rows[owners(friends.offsets)[friends.positive], friends.items[friends.positive]] = 1
    counts, distinct = _counts(history)

    def weigh(keep: Masks) -> Coefficients:
        own = counts(keep) > 0
        common, sizes = own.astype(np.float64) @ rows[:, distinct].T, np.outer(own.sum(1), rows.sum(1))
        return common / np.sqrt(np.maximum(sizes, 1)) + STRANGER

    return LinearScores(rows, weigh)
