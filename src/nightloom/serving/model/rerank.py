"""The re-ranker of `nightloom.models.heads.reranker` as kernels, one query at a time, with counters that every event joins.

Its first layer is linear in inputs that are piecewise linear in each number, so it is piecewise linear itself: what a number adds to it is
known at the edges of the number's bins, and lies on a line between two of them. That takes a fourth of the products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightloom.core.calibration import Line
from nightloom.models.heads.item_counters import DAY, NEVER
from nightloom.serving.model.counters import LiveCounters, all_within, last, until, within
from nightloom.serving.model.jit import inlined, kernel
from nightloom.serving.model.products import product

FloatArray = NDArray[np.float32]
NO_EVENT = np.int64(NEVER)


class HeadWeights(NamedTuple):
    """The ensemble, and how its inputs are made.

    Attributes:
        at_edges: float32 [edges, networks * dim], what a number at each edge of its bins adds to the first layer.
        linear: float32 [columns, networks * dim], what a unit of a number without bins adds.
        numbers_bias: float32 [networks * dim].
        hidden: float32 [networks, dim, dim].
        hidden_bias: float32 [networks, dim].
        direct: float32 [networks, dim].
        last: float32 [networks, dim].
        prior: float32 [networks].
        centre: float32 [columns].
        edge_offsets: int64 [columns + 1], where each column's bin edges begin in `edges`.
        edges: float64.
    """

    at_edges: FloatArray
    linear: FloatArray
    numbers_bias: FloatArray
    hidden: FloatArray
    hidden_bias: FloatArray
    direct: FloatArray
    last: FloatArray
    prior: FloatArray
    centre: FloatArray
    edge_offsets: NDArray[np.int64]
    edges: NDArray[np.float64]


class Reranker:
    """A fitted re-ranker.

    Args:
        arrays: `reranker.safetensors` of an artefact, less the counters.
        settings: the manifest's section.
        counters: of the positive events of all users.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], counters: LiveCounters) -> None:
        edges = [arrays[f"bin_edges.{column}"] for column in range(len(arrays["centre"]))]
        numbers = arrays["numbers"]  # [networks, inputs, dim]
        numbers = numbers.transpose(1, 0, 2).reshape(numbers.shape[1], -1)
        linear = numbers[: len(edges)] / arrays["scale"][:, None]
        self.weights = HeadWeights(
            _at_edges(numbers, linear, arrays["centre"], edges),
            linear,
            arrays["numbers_bias"].reshape(-1),
            arrays["hidden"],
            arrays["hidden_bias"][:, 0],
            arrays["direct"][:, :, 0].copy(),
            arrays["last"][:, :, 0].copy(),
            arrays["prior_log_odds"].reshape(-1),
            arrays["centre"],
            np.cumsum([0, *map(len, edges)], dtype=np.int64),
            np.concatenate(edges).astype(np.float64),
        )
        self.members: tuple[str, ...] = tuple(settings["members"])
        self.exclude_seen: bool = settings["exclude_seen"]
        self.candidates: int = settings["candidates"]
        self.windows = np.array(settings["windows"], dtype=np.int64)
        self.calibration, self.fallback = Line(*settings["calibration"]), Line(*settings["fallback"])
        self.counters = counters

    def log_odds(
        self, scores: FloatArray, chosen: NDArray[np.int64], items: NDArray[np.int32], times: NDArray[np.int64], when: int
    ) -> FloatArray:
        """Calibrated log-odds of the candidates, float32 [candidates].

        Args:
            scores: float32 [1 + members, candidates]: fused, and of each member.
            chosen: int64 [candidates], items, best first.
            items: int32 [events], the history.
            times: int64 [events].
            when: time of the request; not above zero, it is made now, and its events happened now.
        """
        if when <= 0 and self.counters.start:
            when = self.counters.now
            times = np.full(len(items), when)
        rows = self.counters.rows
        odds = answers(self.weights, _describe(rows, self.windows, scores, chosen, items, times, when))
        found: FloatArray = self.calibration(odds).astype(np.float32)
        return found

    def merged(self, fused: FloatArray, odds: FloatArray, places: NDArray[np.int64]) -> FloatArray:
        """Log-odds of all items that are scored, float32 [..., m]; those that are no candidates stay behind the candidates.

        Args:
            fused: float32 [..., m].
            odds: float32 [..., candidates].
            places: int64 [..., candidates], of the candidates among the m, best first.
        """
        found = self.fallback(fused).astype(np.float32)
        last = np.take_along_axis(found, places[..., -1:], -1)
        found += np.minimum(odds.min(-1, keepdims=True) - last, np.float32(0))
        np.put_along_axis(found, places, odds, -1)
        return found


def _at_edges(numbers: FloatArray, linear: FloatArray, centre: FloatArray, edges: list[NDArray[np.float64]]) -> FloatArray:
    """What each number adds to the first layer at the edges of its bins, less what the centres take off: [edges, networks * dim].

    Args:
        numbers: weights of the inputs: of each number, then of each bin of each number.
        linear: weights of a unit of each number.
        centre: what is taken off each number.
        edges: of each number's bins.
    """
    found, first = [np.zeros((0, numbers.shape[1]))], len(edges)
    for column, own in enumerate(edges):
        bins = max(len(own) - 1, 0)
        full = np.cumsum(numbers[first : first + bins], axis=0, dtype=np.float64)
        passed = np.concatenate([np.zeros((min(len(own), 1), numbers.shape[1])), full])
        found.append(passed + np.outer(own - centre[column], linear[column].astype(np.float64)))
        first += bins
    return np.concatenate(found).astype(np.float32)


@inlined
def days(when: Any, then: Any) -> Any:
    """Logarithm of 1 + days passed; -1 for NEVER."""
    return -1.0 if then == NO_EVENT else np.log1p(max(when - then, 0) / DAY)


@kernel
def totals_within(rows: Any, windows: Any, when: Any) -> Any:
    """Logarithm of 1 + the events of all items in each window before a time, float64 [windows]."""
    totals = np.empty(len(windows))
    for place in range(len(windows)):
        totals[place] = np.log1p(all_within(rows, when, windows[place]))
    return totals


@kernel
def count(rows: Any, windows: Any, totals: Any, item: Any, when: Any, out: Any) -> None:
    """The counters of one item before a time, float32 [3 + windows], written: events, shares of windows, days since the first and last."""
    out[0] = np.log1p(until(rows, item, when))
    for place in range(len(windows)):
        out[1 + place] = np.log1p(within(rows, item, when, windows[place])) - totals[place]
    out[1 + len(windows)] = days(when, rows.first[item] if rows.first[item] < when else NO_EVENT)
    out[2 + len(windows)] = days(when, last(rows, item, when))


@kernel
def _describe(rows: Any, windows: Any, scores: Any, chosen: Any, items: Any, times: Any, when: Any) -> Any:
    """As `nightloom.models.heads.reranker.describe`, float32 [candidates, columns]."""
    n, columns, events = len(chosen), len(scores) + 9 + len(windows), len(items)
    own, last_own = np.zeros(len(rows.first), np.int64), np.full(len(rows.first), NO_EVENT)
    distinct, newest = 0, NO_EVENT
    for event in range(events):
        item = items[event]
        distinct += own[item] == 0
        own[item] += 1
        last_own[item] = max(last_own[item], times[event])
        newest = max(newest, times[event])
    totals = totals_within(rows, windows, when)
    table = np.empty((n, columns), np.float32)
    counted = np.empty(3 + len(windows), np.float32)
    for rank in range(n):
        item, row = chosen[rank], table[rank]
        at = len(scores)
        for member in range(at):
            row[member] = scores[member, rank]
        row[at] = rank
        row[at + 1] = np.log1p(own[item])
        row[at + 2] = days(when, last_own[item])
        count(rows, windows, totals, item, when, counted)
        row[at + 3 : at + 6 + len(windows)] = counted
        at += 6 + len(windows)
        row[at] = np.log1p(events)
        row[at + 1] = days(when, newest)
        row[at + 2] = distinct / max(events, 1)
    return table


@kernel
def answers(net: Any, table: Any) -> Any:
    """Mean log-odds of the ensemble before calibration, float32 [candidates]."""
    n, columns = table.shape
    networks, dim = net.direct.shape
    common, deep, deeper = np.empty((n, networks * dim), np.float32), np.empty((n, dim), np.float32), np.empty((n, dim), np.float32)
    for row in range(n):
        sums = common[row]
        sums[:] = net.numbers_bias
        for column in range(columns):
            value, low, high = table[row, column], net.edge_offsets[column], net.edge_offsets[column + 1] - 1
            if high < low:
                share, own = value - net.centre[column], net.linear[column]
                for j in range(len(sums)):
                    sums[j] += share * own[j]
                continue
            last_edge = high
            while high - low > 1:  # the bin that holds the value; one outside the range of the fit counts as the end of that range
                middle = (low + high) // 2
                if net.edges[middle] <= value:
                    low = middle
                else:
                    high = middle
            share = np.float32(0)
            if last_edge > net.edge_offsets[column]:
                share = np.float32(min(max((value - net.edges[low]) / (net.edges[high] - net.edges[low]), 0.0), 1.0))
            rest, below, above = np.float32(1) - share, net.at_edges[low], net.at_edges[high]
            for j in range(len(sums)):
                sums[j] += rest * below[j] + share * above[j]
    odds = np.zeros(n, np.float32)
    for network in range(networks):
        first = network * dim
        for row in range(n):
            for j in range(dim):
                h = common[row, first + j]
                odds[row] += h * net.direct[network, j]
                deep[row, j] = max(h, np.float32(0))
        product(deep, net.hidden[network], deeper)
        for row in range(n):
            for j in range(dim):
                odds[row] += max(deeper[row, j] + net.hidden_bias[network, j], np.float32(0)) * net.last[network, j]
            odds[row] += net.prior[network]
    return odds / np.float32(networks)
