"""The re-ranker: the probability of an interaction, p = f(W u + X_i + C c), for the candidates that retrieval ranks first.

u are features of the user (how many events, how recent), X_i of the item (causal counters: how many events, how recent), c of the two
together: the standardised scores of the network and the scorers, the rank among the candidates, and the user's own events of the item.
They are added up in one space, over which f is a small network: `HeadNet`. Vectors of the network are no features, only the scores
made of them: they change with every training, and a re-ranker is chosen before a refit and used after it.

Scores become log-odds. Candidates have the head's; the other items have those of a line through the fused scores, on the same scale.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from nightloom.core.calibration import Line
from nightloom.core.ragged import owners
from nightloom.core.recommender import Allowed, mask_excluded
from nightloom.core.sequences import Histories
from nightloom.core.top_k import top_k
from nightloom.models.heads.item_counters import DAY, NEVER, ItemCounters
from nightloom.models.heads.net import HeadNet
from nightloom.models.heads.piecewise_linear import piecewise_linear, quantiles

FloatArray = NDArray[np.float32]
MembersAt = Callable[[NDArray[np.int64]], Mapping[str, FloatArray]]
"""Columns, int64 [n, candidates] -> member -> its standardised scores there, float32 [n, candidates]."""
CANDIDATES = 100
"""Items of each query that are re-ranked."""
WINDOWS = (7, 30)
"""Days of the counters of recent events."""
COUNTERS = (
    "rank",
    "user's events of the item",
    "days since the user's last event of the item",
    "events of the item",
    *(f"item's share of the events of {days} days" for days in WINDOWS),
    "days since the item's first event",
    "days since the item's last event",
    "events of the user",
    "days since the user's last event",
    "share of the user's events that are the first of their item",
)


@dataclass(frozen=True)
class Numbers:
    """How features become inputs: standardised, and piecewise linear between quantiles (`nightloom.models.heads.piecewise_linear`).

    A number outside the range of its column at the fit counts as the end of that range. A request long after training has counters that
    lie far outside, and a network says nothing sensible there.

    Attributes:
        centre: float32 [columns].
        scale: float32 [columns].
        bin_edges: distinct quantiles of each column, the lowest and the highest number of the fit among them.
    """

    centre: FloatArray
    scale: FloatArray
    bin_edges: tuple[NDArray[np.float64], ...]

    @classmethod
    def fit(cls, table: FloatArray) -> Self:
        """Fit on numbers [rows, columns]."""
        spread = table.std(0)
        return cls(table.mean(0), np.where(spread > 1e-6, spread, 1).astype(np.float32), tuple(quantiles(one) for one in table.T))

    @property
    def width(self) -> int:
        """Inputs of a row."""
        return len(self.centre) + sum(max(len(one) - 1, 0) for one in self.bin_edges)

    def __call__(self, table: FloatArray) -> torch.Tensor:
        """Numbers [rows, columns] -> inputs, float32 [rows, width]."""
        ends = [(edges[0], edges[-1]) if len(edges) else (-np.inf, np.inf) for edges in self.bin_edges]
        table = np.clip(table, *np.array(ends, dtype=np.float32).reshape(-1, 2).T)
        parts = [piecewise_linear(column, bin_edges).astype(np.float32) for column, bin_edges in zip(table.T, self.bin_edges, strict=True)]
        return torch.from_numpy(np.column_stack([(table - self.centre) / self.scale, *parts]))


@dataclass
class Reranker:
    """A fitted re-ranker.

    Attributes:
        net: an ensemble of networks, whose log-odds are averaged.
        numbers: how its inputs are made.
        calibration: from the net's log-odds to calibrated ones.
        fallback: from fused scores to log-odds, for items that are not candidates.
        members: whose scores are features, in that order, "network" first.
        exclude_seen: whether items that the history has seen are left out of the candidates.
        item_counters: counters of the events of all users.
    """

    net: HeadNet
    numbers: Numbers
    calibration: Line
    fallback: Line
    members: tuple[str, ...]
    exclude_seen: bool
    item_counters: ItemCounters

    def rescore(
        self,
        fused: FloatArray,
        members: Mapping[str, FloatArray] | MembersAt,
        histories: Histories,
        ablated: int | None = None,
        allowed: Allowed | None = None,
        items: NDArray[np.int64] | None = None,
    ) -> FloatArray:
        """Log-odds of the items that are scored, float32 [n, k].

        Args:
            fused: float32 [n, k], the fused scores.
            members: member -> float32 [n, k], its standardised scores; or what says those of some columns.
            histories: n queries; one without a time (`request_time` zero) is a request now, after all events that are known.
            ablated: an item whose counters are hidden, as if it had no events.
            allowed: items that may be candidates; None: all.
            items: int64 [n, k], the items that are scored; None: the whole catalogue.
        """
        found = self.fallback(fused).astype(np.float32, copy=False)
        best, inputs = self.candidates(fused, members, histories, ablated, allowed, items)
        odds = self.log_odds(inputs)
        # The others stay behind all candidates, in their own order: a line through the scores of all queries can not tell how low this
        # query's candidates are.
        edge = np.take_along_axis(found, best[:, -1:], 1)
        found += np.minimum(odds.min(1, keepdims=True, initial=np.inf) - edge, 0)
        np.put_along_axis(found, best, odds, 1)
        return found

    def candidates(
        self,
        fused: FloatArray,
        members: Mapping[str, FloatArray] | MembersAt,
        histories: Histories,
        ablated: int | None = None,
        allowed: Allowed | None = None,
        items: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """Columns of the candidates, int64 [n, candidates], and what `describe` says of them; arguments as in `rescore`."""
        best = candidates_of(fused, histories, exclude_seen=self.exclude_seen, allowed=allowed, items=items)
        scored = members(best) if callable(members) else {name: np.take_along_axis(members[name], best, 1) for name in self.members}
        columns = [np.take_along_axis(fused, best, 1), *(scored[name] for name in self.members)]
        chosen = best if items is None else np.take_along_axis(items, best, 1)
        return best, describe(columns, chosen, self._dated(histories), self.item_counters, ablated)

    def log_odds(self, described: FloatArray) -> FloatArray:
        """Log-odds of the features of `describe`, [n, candidates, columns] -> float32 [n, candidates]."""
        return self.calibration(answers(self.net, self.numbers, described)).astype(np.float32)

    def _dated(self, histories: Histories) -> Histories:
        """A query without a time is made now, and its events happened now: at time zero all counters would be empty.

        Where no event has a time, training had no counters either, and nothing is changed.
        """
        timeless = histories.request_time <= 0
        if not self.item_counters.start or not timeless.any():
            return histories
        events = np.repeat(timeless, histories.lengths)
        now = self.item_counters.now
        return replace(
            histories, times=np.where(events, now, histories.times), request_time=np.where(timeless, now, histories.request_time)
        )

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Reranker:
        """The same over another catalogue; see `Scorer.reindex`."""
        return replace(self, item_counters=self.item_counters.reindex(rows, n_items))

    def save(self, folder: Path) -> None:
        """Write `reranker.json`, `reranker.safetensors` and `item_counters.npz`."""
        tensors = {f"net.{name}": value.detach().contiguous().clone() for name, value in self.net.state_dict().items()}
        tensors |= {f"numbers.{name}": torch.from_numpy(getattr(self.numbers, name).copy()) for name in ("centre", "scale")}
        tensors |= {f"bin_edges.{place}": torch.from_numpy(one.copy()) for place, one in enumerate(self.numbers.bin_edges)}
        save_file(tensors, folder / "reranker.safetensors")
        settings = {
            "members": self.members,
            "exclude_seen": self.exclude_seen,
            "calibration": [self.calibration.slope, self.calibration.offset],
            "fallback": [self.fallback.slope, self.fallback.offset],
        }
        (folder / "reranker.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        self.item_counters.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        settings: dict[str, Any] = json.loads((folder / "reranker.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "reranker.safetensors")
        centre, scale = tensors["numbers.centre"].numpy(), tensors["numbers.scale"].numpy()
        numbers = Numbers(centre, scale, tuple(tensors[f"bin_edges.{place}"].numpy() for place in range(len(centre))))
        state = {name[4:]: value for name, value in tensors.items() if name.startswith("net.")}
        members, _, dim = state["codes"].shape
        net = HeadNet(members, 0, numbers.width, dim, 0.0)
        net.load_state_dict(state)
        net.requires_grad_(False).eval()
        calibration, fallback = (Line(*settings[name]) for name in ("calibration", "fallback"))
        return cls(net, numbers, calibration, fallback, tuple(settings["members"]), settings["exclude_seen"], ItemCounters.load(folder))


@torch.no_grad()
def answers(net: HeadNet, numbers: Numbers, described: FloatArray) -> FloatArray:
    """Log-odds before calibration, [n, candidates, columns] -> float32 [n, candidates]."""
    rows = numbers(described.reshape(-1, described.shape[2]))
    no_codes = torch.zeros(net.members, len(rows), 0, dtype=torch.int64)
    mean: FloatArray = net(no_codes, rows.expand(net.members, -1, -1)).mean(0).numpy()
    return mean.reshape(described.shape[:2])


def candidates_of(
    fused: FloatArray,
    histories: Histories,
    *,
    exclude_seen: bool,
    allowed: Allowed | None = None,
    items: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Columns of the best fused scores, best first, int64 [n, candidates]; NaN comes last.

    Args:
        fused: float32 [n, k].
        histories: one for each query.
        exclude_seen: whether items of the history come last.
        allowed: items that may be recommended, the others come last; None: all.
        items: int64 [n, k], the items that are scored; None: the whole catalogue, so that columns are items.
    """
    masked = np.where(np.isnan(fused), np.float32(-np.inf), fused)
    mask_excluded(masked, histories, exclude_seen=exclude_seen, allowed=allowed, candidates=items)
    return top_k(masked, CANDIDATES)


def describe(
    scores: list[FloatArray],
    candidates: NDArray[np.int64],
    histories: Histories,
    item_counters: ItemCounters,
    ablated: int | None = None,
) -> FloatArray:
    """What the head reads of each candidate: fused score, each member's, then `COUNTERS`; float32 [n, candidates, columns].

    Args:
        scores: float32 [n, candidates] each: fused, and of each member.
        candidates: int64 [n, candidates], items, best first.
        histories: n queries; counters stop at `request_time`.
        item_counters: events of all users by item.
        ablated: see `Reranker.rescore`.
    """
    n, k = candidates.shape
    when = np.repeat(histories.request_time[:, None], k, 1)
    own, last_own, events, gap, fresh = _own(candidates, histories, len(item_counters.first))
    times, last = item_counters.until(candidates, when), item_counters.last(candidates, when)
    first = np.where(item_counters.first[candidates] < when, item_counters.first[candidates], NEVER)
    recent = [item_counters.within(candidates, when, days) for days in WINDOWS]
    if ablated is not None:
        hidden = candidates == ablated
        for counts in (own, times, *recent):
            counts[hidden] = 0
        for dates in (last_own, first, last):
            dates[hidden] = NEVER
    totals = [np.log1p(item_counters.all_within(histories.request_time, days))[:, None] for days in WINDOWS]
    columns = [
        *scores,
        np.broadcast_to(np.arange(k), (n, k)),
        np.log1p(own),
        _days(when, last_own),
        np.log1p(times),
        *(np.log1p(counts) - total for counts, total in zip(recent, totals, strict=True)),
        _days(when, first),
        _days(when, last),
        *(np.broadcast_to(one[:, None], (n, k)) for one in (np.log1p(events), gap, fresh)),
    ]
    return np.stack(columns, -1).astype(np.float32)


def _days(when: NDArray[np.int64], then: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithm of 1 + days passed; -1 for NEVER."""
    return np.where(then == NEVER, -1.0, np.log1p(np.maximum(when - then, 0) / DAY))


def _own(candidates: NDArray[np.int64], histories: Histories, n_items: int) -> tuple[NDArray[Any], ...]:
    """Five arrays of the users' histories.

    Of each candidate, [n, k]: its events in the history, and the time of the last or NEVER.
    Of each user, [n]: the number of events, the days since the last (see `_days`), and the share of events that are the first of
    their item.
    """
    n, lengths = len(histories), histories.lengths
    owner = owners(histories.offsets)
    pair = owner * n_items + histories.items
    pairs, place, counts = np.unique(pair, return_inverse=True, return_counts=True)
    latest = np.full(len(pairs), NEVER)
    np.maximum.at(latest, place, histories.times)
    wanted = np.arange(n, dtype=np.int64)[:, None] * n_items + candidates
    at = np.minimum(np.searchsorted(pairs, wanted), max(len(pairs) - 1, 0))
    found = pairs[at] == wanted if len(pairs) else np.zeros(wanted.shape, dtype=bool)
    own = np.where(found, counts[at], 0) if len(pairs) else np.zeros(wanted.shape, dtype=np.int64)
    last = np.where(found, latest[at], NEVER) if len(pairs) else np.full(wanted.shape, NEVER)
    newest = np.full(n, NEVER)
    np.maximum.at(newest, owner, histories.times)
    distinct = np.bincount(pairs // n_items, minlength=n)
    return own, last, lengths, _days(histories.request_time, newest), distinct / np.maximum(lengths, 1)
