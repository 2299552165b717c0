"""The re-ranker over many coalitions of one history.

What it reads of an item (counters, the item's column of each scorer, its vector) depends on no coalition, and coalitions of one history
have much the same candidates. So it is looked up once for each item that becomes a candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.serving.model.jit import kernel
from nightloom.serving.model.rerank import NO_EVENT, Reranker, answers, count, days, totals_within
from nightloom.serving.model.scoring import best

FloatArray = NDArray[np.float32]
Moments = NDArray[np.float64]
NETWORK = -1
"""In place of where a scorer's rows begin."""


class RerankedCoalitions:
    """The re-ranker, asked for coalitions of one history.

    Args:
        reranker: the re-ranker.
        history: exactly one.
        vectors: float32 [items, dim].
        rows: float32 [rows, items], those of all scorers (`nightloom.serving.reasons.linear_scores`).
        spans: int64 [members of the re-ranker, 2], where the rows of each begin and end; `NETWORK` for the network.
        open_to: bool [items], what may be recommended.
        lock: held while counters are read, which events change.
    """

    def __init__(
        self,
        reranker: Reranker,
        history: Histories,
        vectors: FloatArray,
        rows: FloatArray,
        spans: NDArray[np.int64],
        open_to: NDArray[np.bool_],
        lock: AbstractContextManager[Any],
    ) -> None:
        self.members = reranker.members
        self._reranker, self._vectors, self._rows, self._spans = reranker, vectors, rows, spans
        self._open, self._lock, self._items = open_to, lock, history.items
        self._seen = history.seen if reranker.exclude_seen else np.zeros(len(history.items), np.bool_)
        self._distinct, self._which = np.unique(history.items, return_inverse=True)
        self._when, self._times = int(history.request_time[0]), history.times
        with lock:
            if self._when <= 0 and reranker.counters.start:  # made now, of events that happened now, as `Reranker.log_odds` has it
                self._when = reranker.counters.now
                self._times = np.full(len(history.items), self._when)
        self._slots = np.full(len(vectors), -1)
        self._own = np.zeros(0, np.int64)
        self._counted = np.zeros((0, 3 + len(reranker.windows)), np.float32)
        self._columns, self._known = np.zeros((0, len(rows)), np.float32), np.zeros((0, vectors.shape[1]), np.float32)

    def __call__(
        self,
        fused: FloatArray,
        keep: NDArray[np.bool_],
        users: FloatArray,
        coefficients: NDArray[np.float64],
        means: Moments,
        slopes: Moments,
    ) -> FloatArray:
        """Final scores, float32 [coalitions, items].

        Args:
            fused: float32 [coalitions, items], fused scores.
            keep: bool [coalitions, events].
            users: float32 [coalitions, dim], user vectors.
            coefficients: float64 [coalitions, rows], how much each row counts.
            means: float64 [coalitions, members], of each member's scores over the catalogue.
            slopes: the same, one over their spread.
        """
        reranker = self._reranker
        shape = len(keep), min(reranker.candidates, fused.shape[1])
        chosen, top, odds = np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(shape, np.float32)
        candidates(fused, keep, self._items, self._seen, self._open, np.arange(fused.shape[1]), chosen, top)
        self._look_up(chosen)
        member_scores = self._spans, self._known, self._columns, users, coefficients, means, slopes
        events = keep, self._which, self._times, np.int64(self._when)
        log_odds(reranker.weights, self._slots[chosen], top, self._counted, self._own, member_scores, events, odds)
        return reranker.merged(fused, reranker.calibration(odds).astype(np.float32), chosen)

    def _look_up(self, chosen: NDArray[np.int64]) -> None:
        """Learn what the re-ranker reads of candidates that are new."""
        items = np.unique(chosen)
        items = items[self._slots[items] < 0]
        if not len(items):
            return
        counted = np.empty((len(items), self._counted.shape[1]), np.float32)
        with self._lock:
            count_each(self._reranker.counters.rows, self._reranker.windows, items, np.int64(self._when), counted)
        self._slots[items] = np.arange(len(self._counted), len(self._counted) + len(items))
        self._counted = np.concatenate([self._counted, counted])
        self._columns = np.concatenate([self._columns, self._rows[:, items].T])
        self._known = np.concatenate([self._known, self._vectors[items]])
        places = np.searchsorted(self._distinct, items).clip(max=max(len(self._distinct) - 1, 0))
        own = np.where(self._distinct[places] == items, places, -1) if len(self._distinct) else np.full(len(items), -1)
        self._own = np.concatenate([self._own, own])


def spans_of(members: Sequence[str], rows: dict[str, int]) -> NDArray[np.int64]:
    """Where each member of a re-ranker has its rows, int64 [members, 2].

    Args:
        members: "network" or a scorer.
        rows: scorer -> how many rows it has, in the order in which these stand.
    """
    ends = dict(zip(rows, np.cumsum(list(rows.values())).tolist(), strict=True))
    found = [(NETWORK, NETWORK) if name not in rows else (ends[name] - rows[name], ends[name]) for name in members]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


@kernel
def count_each(rows: Any, windows: Any, items: Any, when: Any, out: Any) -> None:
    """Counters of items before a time, float32 [items, 3 + windows], written."""
    totals = totals_within(rows, windows, when)
    for place in range(len(items)):
        count(rows, windows, totals, items[place], when, out[place])


@kernel
def candidates(fused: Any, keep: Any, items: Any, seen: Any, open_to: Any, pool: Any, chosen: Any, top: Any) -> None:
    """The best items of each coalition, best first; where fewer may be recommended, others follow by id.

    Args:
        fused: float32 [coalitions, items].
        keep: bool [coalitions, events].
        items: int32 [events].
        seen: bool [events], whose items are left out.
        open_to: bool [items].
        pool: int64 [items], all of them.
        chosen: int64 [coalitions, candidates], written.
        top: float32 [coalitions, candidates], their fused scores, written.
    """
    k = chosen.shape[1]
    for row in range(len(keep)):
        left_out = items[keep[row] & seen]
        many = best(fused[row], pool, open_to, left_out, k, chosen[row], top[row])
        if many < k:
            taken = np.zeros(len(pool), np.bool_)
            for place in range(many):
                taken[chosen[row, place]] = True
            for item in pool:
                if many < k and not taken[item]:
                    chosen[row, many], top[row, many] = item, fused[row, item]
                    many += 1


@kernel
def log_odds(net: Any, chosen: Any, top: Any, counted: Any, own: Any, members: Any, events: Any, out: Any) -> None:
    """Log-odds of the candidates of coalitions before calibration: the columns of `nightloom.models.heads.reranker.describe`, and answers.

    Args:
        net: `HeadWeights`.
        chosen: int64 [coalitions, candidates], slots of the candidates, best first.
        top: float32 [coalitions, candidates], fused scores.
        counted: float32 [slots, 3 + windows].
        own: int64 [slots], which of the history's distinct items it is; -1: none.
        members: spans; vectors and columns of the slots; users, coefficients, means and slopes of the coalitions.
        events: the coalitions, each event's distinct item, its time, and the time of the request.
        out: float32 [coalitions, candidates], written.
    """
    spans, vectors, columns, users, coefficients, means, slopes = members
    keep, which, times, when = events
    many, width = chosen.shape[1], counted.shape[1]
    first = 1 + len(spans)
    table = np.empty((many, first + 6 + width), np.float32)
    counts, last_own = np.empty(len(which), np.int64), np.empty(len(which), np.int64)
    for row in range(len(chosen)):
        counts[:], last_own[:] = 0, NO_EVENT
        length, distinct, newest = 0, 0, NO_EVENT
        for event in range(len(which)):
            if keep[row, event]:
                item = which[event]
                length += 1
                distinct += counts[item] == 0
                counts[item] += 1
                last_own[item] = max(last_own[item], times[event])
                newest = max(newest, times[event])
        for place in range(many):
            slot, line = chosen[row, place], table[place]
            line[0] = top[row, place]
            for member in range(len(spans)):
                begin, end = spans[member]
                total = 0.0
                if begin == NETWORK:
                    for j in range(vectors.shape[1]):
                        total += users[row, j] * vectors[slot, j]
                else:
                    for j in range(begin, end):
                        total += coefficients[row, j] * columns[slot, j]
                line[1 + member] = (total - means[row, member]) * slopes[row, member]
            item = own[slot]
            line[first] = place
            line[first + 1] = np.log1p(counts[item]) if item >= 0 else 0.0
            line[first + 2] = days(when, last_own[item]) if item >= 0 else -1.0
            line[first + 3 : first + 3 + width] = counted[slot]
            line[first + 3 + width] = np.log1p(length)
            line[first + 4 + width] = days(when, newest)
            line[first + 5 + width] = distinct / max(length, 1)
        out[row] = answers(net, table)
