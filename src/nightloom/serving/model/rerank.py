"""The re-ranker of `nightloom.models.heads.reranker` as kernels, one query at a time, with counters that every event joins."""

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
        numbers: float32 [inputs, networks * dim].
        numbers_bias: float32 [networks * dim].
        hidden: float32 [networks, dim, dim].
        hidden_bias: float32 [networks, dim].
        direct: float32 [networks, dim].
        last: float32 [networks, dim].
        prior: float32 [networks].
        centre: float32 [columns].
        scale: float32 [columns].
        edge_offsets: int64 [columns + 1], where each column's bin edges begin in `edges`.
        edges: float64.
    """

    numbers: FloatArray
    numbers_bias: FloatArray
    hidden: FloatArray
    hidden_bias: FloatArray
    direct: FloatArray
    last: FloatArray
    prior: FloatArray
    centre: FloatArray
    scale: FloatArray
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
        self.weights = HeadWeights(
            np.ascontiguousarray(numbers.transpose(1, 0, 2).reshape(numbers.shape[1], -1)),
            arrays["numbers_bias"].reshape(-1),
            arrays["hidden"],
            arrays["hidden_bias"][:, 0],
            arrays["direct"][:, :, 0].copy(),
            arrays["last"][:, :, 0].copy(),
            arrays["prior_log_odds"].reshape(-1),
            arrays["centre"],
            arrays["scale"],
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
        odds = _answers(self.weights, _describe(rows, self.windows, scores, chosen, items, times, when))
        found: FloatArray = self.calibration(odds).astype(np.float32)
        return found

    def merged(self, fused: FloatArray, odds: FloatArray, places: NDArray[np.int64]) -> FloatArray:
        """Log-odds of all items that are scored, float32 [m]; those that are no candidates stay behind the candidates.

        Args:
            fused: float32 [m].
            odds: float32 [candidates].
            places: int64 [candidates], of the candidates among the m, best first.
        """
        found = self.fallback(fused).astype(np.float32)
        found += min(odds.min() - found[places[-1]], np.float32(0))
        found[places] = odds
        return found


@inlined
def _days(when: Any, then: Any) -> Any:
    """Logarithm of 1 + days passed; -1 for NEVER."""
    return -1.0 if then == NO_EVENT else np.log1p(max(when - then, 0) / DAY)


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
    totals = np.empty(len(windows))
    for place in range(len(windows)):
        totals[place] = np.log1p(all_within(rows, when, windows[place]))
    table = np.empty((n, columns), np.float32)
    for rank in range(n):
        item, row = chosen[rank], table[rank]
        at = len(scores)
        for member in range(at):
            row[member] = scores[member, rank]
        row[at] = rank
        row[at + 1] = np.log1p(own[item])
        row[at + 2] = _days(when, last_own[item])
        row[at + 3] = np.log1p(until(rows, item, when))
        for place in range(len(windows)):
            row[at + 4 + place] = np.log1p(within(rows, item, when, windows[place])) - totals[place]
        at += 4 + len(windows)
        row[at] = _days(when, rows.first[item] if rows.first[item] < when else NO_EVENT)
        row[at + 1] = _days(when, last(rows, item, when))
        row[at + 2] = np.log1p(events)
        row[at + 3] = _days(when, newest)
        row[at + 4] = distinct / max(events, 1)
    return table


@kernel
def _answers(net: Any, table: Any) -> Any:
    """Mean log-odds of the ensemble before calibration, float32 [candidates]."""
    n, columns = table.shape
    networks, dim = net.direct.shape
    inputs = np.empty((n, len(net.numbers)), np.float32)
    for row in range(n):
        at = columns
        for column in range(columns):
            value, first_edge, behind = table[row, column], net.edge_offsets[column], net.edge_offsets[column + 1]
            if behind > first_edge:  # a number outside the range of the fit counts as the end of that range
                value = min(max(value, np.float32(net.edges[first_edge])), np.float32(net.edges[behind - 1]))
            inputs[row, column] = (value - net.centre[column]) / net.scale[column]
            for edge in range(first_edge, behind - 1):
                low, high = net.edges[edge], net.edges[edge + 1]
                inputs[row, at] = min(max((value - low) / (high - low), 0.0), 1.0)
                at += 1
    common, deep, deeper = np.empty((n, networks * dim), np.float32), np.empty((n, dim), np.float32), np.empty((n, dim), np.float32)
    product(inputs, net.numbers, common)
    odds = np.zeros(n, np.float32)
    for network in range(networks):
        first = network * dim
        for row in range(n):
            for j in range(dim):
                h = common[row, first + j] + net.numbers_bias[first + j]
                odds[row] += h * net.direct[network, j]
                deep[row, j] = max(h, np.float32(0))
        product(deep, net.hidden[network], deeper)
        for row in range(n):
            for j in range(dim):
                odds[row] += max(deeper[row, j] + net.hidden_bias[network, j], np.float32(0)) * net.last[network, j]
            odds[row] += net.prior[network]
    return odds / np.float32(networks)
