"""Candidates of a large catalogue: the only items that can be among the best, and their fused scores, without a look at the others.

What is dense in a fused score, the network, item factors and popularity, is one inner product of a query and a row for each item. So an
index of these rows (`nightloom.serving.model.cells`) gives the items that are best by it. What is popular lies anywhere among them, and is
a candidate always; so is what a popularity penalty spares most, which is one more column. Where a re-ranker looks at the best before the
penalty counts, the index is asked twice. Scorers of edges, repeats and votes add to some items, and those are candidates, too; so are all
that came or changed by day. Scores of candidates are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.serving.items.catalogue import LiveCatalogue
from nightloom.serving.model.cells import Cells
from nightloom.serving.model.members import Factors, Member, Popularity
from nightloom.serving.model.penalty import Penalty
from nightloom.serving.model.scoring import fuse, network_line
from nightloom.serving.model.sparse_scores import NOTHING, Sparse, SparseScorer

FloatArray = NDArray[np.float32]
Trials = Sequence[tuple[Histories, FloatArray]]
"""Histories and their user vectors."""
CANDIDATES, POPULAR, FEW = 1_000, 2_000, 0.02
"""Items that the index gives, at least; those that are most popular, or that a penalty spares most; share of the catalogue up to which all
is scored that a filter keeps."""
FAR = 0.2
"""Change of log(1 + events), a fifth more events, that the index does not stand for."""
SHARES, WANTED, TRIED = (0.02, 0.05, 0.1, 0.2), 0.99, 50
"""Shares of the index that may be scanned, share of the 100 best that must be found by it, and queries that are tried."""


class Scored(NamedTuple):
    """Candidates and their scores.

    Attributes:
        pool: int64 [m], items, ascending.
        fused: float32 [m].
        members: float32 [scorers, m]; -inf where an item can not be ranked.
        lines: float64 [scorers + 1, 3], as `nightloom.serving.model.scoring.standards` has them.
    """

    pool: NDArray[np.int64]
    fused: FloatArray
    members: FloatArray
    lines: NDArray[np.float64]


class _Counts(NamedTuple):
    """A member whose scores events change, as the index knows it.

    Attributes:
        member: popularity, or the like.
        known: float32 [items], the scores that the index stands for.
        least: the lowest of the night's `POPULAR` best.
        column: of the index.
        scale: by which its scores are multiplied there.
    """

    member: Popularity
    known: FloatArray
    least: float
    column: int
    scale: np.float32


class Retrieval:
    """Finds and scores candidates.

    Args:
        catalogue: the items, as many as the index holds, and those that come later.
        members: the scorers that have a weight, by name.
        weights: scorer -> its fusion weight for long histories.
        trials: by which the index is tried; see `trials_of`.
        penalty: what is taken off the final scores; None: nothing.
        unit: how much a unit of the fused score is in final ones: 1, or log-odds where a re-ranker answers.
        reranked: whether a re-ranker looks at the best of the fused scores.
    """

    def __init__(
        self,
        catalogue: LiveCatalogue,
        members: Mapping[str, Member],
        weights: Mapping[str, float],
        trials: Trials,
        penalty: Penalty | None = None,
        unit: float = 1.0,
        *,
        reranked: bool = False,
    ) -> None:
        self.catalogue, self.members = catalogue, members
        self.scorers = [SparseScorer(member) for member in members.values()]
        self.indexed = len(catalogue)
        dense = [(place, member) for place, member in enumerate(members.values()) if isinstance(member, Factors | Popularity)]
        self._dense = sorted(dense, key=lambda one: isinstance(one[1], Popularity))  # last, since what is popular lies anywhere
        blocks = [catalogue.vectors, *(_columns(member) for _, member in self._dense)]
        self._penalised = () if penalty is None else (False, True) if reranked else (True,)
        names = list(members)
        shares = [1 - sum(weights.values()), *(weights[names[place]] for place, _ in self._dense)]  # what weighs more decides what is near
        if penalty is not None:
            off = (penalty.values.mean() - penalty.values[:, None]) / np.float32(unit)
            blocks.append(off)
            shares.append(float(off.std()))
        sizes = [max(float(np.sqrt(np.square(block).mean())), 1e-12) for block in blocks]
        self._scales = [np.float32(max(share, 0.01) / size) for share, size in zip(shares, sizes, strict=True)]
        rows = np.concatenate([block * scale for block, scale in zip(blocks, self._scales, strict=True)], axis=1)
        popular = [member for member in members.values() if isinstance(member, Popularity)]
        self.cells = Cells(rows, rows.shape[1] - len(popular) - (penalty is not None))
        lifted = [one.values for one in popular] + ([] if penalty is None else [-penalty.values])  # they lie anywhere
        best = [np.argsort(-one, kind="stable")[:POPULAR] for one in lifted]
        self._lifted = np.unique(np.concatenate([NOTHING, *best]))
        scales = self._scales[1 + len(self._dense) - len(popular) :]
        columns = range(rows.shape[1] - len(lifted), rows.shape[1])
        self._counts = [
            _Counts(member, member.values.copy(), float(member.values[top].min()), column, scale)
            for member, top, column, scale in zip(popular, best, columns, scales, strict=False)
        ]
        self.share = self._tried(trials, rows, weights)

    @property
    def finds(self) -> bool:
        """Whether a part of the index suffices; vectors without structure are scanned whole instead."""
        return self.share < 1

    def pays(self, open_to: NDArray[np.bool_]) -> bool:
        """Whether candidates of what may be recommended cost less than a scan: few items, or an index that finds them."""
        return self.finds or int(np.count_nonzero(open_to)) <= FEW * len(self.catalogue)

    def counted(self, item: int) -> None:
        """An event of an item was counted: the index learns of it, and what is as popular as the best were is a candidate always."""
        if item >= self.indexed:
            return
        for one in self._counts:
            value = float(one.member.values[item])
            if abs(value - one.known[item]) <= FAR:
                continue
            one.known[item] = value
            self.cells.change(item, one.column, value * float(one.scale))
            if value > one.least and item not in self._lifted:
                self._lifted = np.union1d(self._lifted, [item])

    def scored(
        self, histories: Histories, user: FloatArray, weights: FloatArray, open_to: NDArray[np.bool_], lifted: NDArray[np.int64], k: int
    ) -> Scored:
        """Candidates for one history: all that may be among the k best.

        Args:
            histories: one history.
            user: float32 [dim].
            weights: float32 [scorers + 1], the network's first.
            open_to: bool [items], what may be recommended.
            lifted: items that a rule lifts.
            k: how many are wanted, with those that are left out.
        """
        n = len(self.catalogue)
        found = [scorer.of(histories, n) for scorer in self.scorers]
        lines = self._lines(user, found)
        kept = int(np.count_nonzero(open_to))
        if kept <= FEW * n:
            pool = np.flatnonzero(open_to)
        else:
            best = self._nearest(self._queries(user, found, weights, lines), max(CANDIDATES, 4 * k), self.share, open_to)
            pool = np.concatenate([best, self._lifted, np.arange(self.indexed, n), lifted])
        edges = [one.items for one in found]
        pool = np.unique(np.concatenate([pool, *edges]))
        members = np.empty((len(found), len(pool)), np.float32)
        for row, scorer, one in zip(members, self.scorers, found, strict=True):
            row[:] = scorer.at(one, pool, n)
        fused = np.empty(len(pool), np.float32)
        fuse(self.catalogue.rows, user, members, lines, weights, pool, fused)
        return Scored(pool, fused, members, lines)

    def _lines(self, user: FloatArray, found: list[Sparse]) -> NDArray[np.float64]:
        """How scores are standardised, as `nightloom.serving.model.scoring.standards` has it."""
        return np.stack([network_line(user, self.catalogue.mean, self.catalogue.covariance), *(one.line for one in found)])

    def _nearest(self, queries: list[FloatArray], k: int, share: float, allowed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """What the index gives for any of some queries; arguments as of `Cells.nearest`."""
        return np.concatenate([self.cells.nearest(query, k, share, allowed) for query in queries])

    def _queries(self, user: FloatArray, found: list[Sparse], weights: FloatArray, lines: NDArray[np.float64]) -> list[FloatArray]:
        """What the index is asked: the dense part of a fused score as one inner product, without and with a penalty as it is needed."""
        parts = [user * np.float32(weights[0] * lines[0, 1]) / self._scales[0]]
        for (place, member), scale in zip(self._dense, self._scales[1 : len(self._dense) + 1], strict=True):
            own = found[place].query[:-1] if isinstance(member, Factors) else np.ones(1, np.float32)
            parts.append(own * np.float32(weights[place + 1] * lines[place + 1, 1]) / scale)
        dense = np.concatenate(parts).astype(np.float32)
        if not self._penalised:
            return [dense]
        return [np.append(dense, np.float32(penalised) / self._scales[-1]) for penalised in self._penalised]

    def _tried(self, trials: Trials, rows: FloatArray, weights: Mapping[str, float]) -> float:
        """The smallest share of `SHARES` by which nearly all of the 100 best are found; 1 where none is enough."""
        fused = np.array([1 - sum(weights.values()), *(weights[name] for name in self.members)], np.float32)
        asked = []
        for histories, user in trials:
            found = [scorer.of(histories, self.indexed) for scorer in self.scorers]
            asked.append(self._queries(user, found, fused, self._lines(user, found)))
        wanted = [np.argpartition(-(rows @ queries[-1]), 100)[:100] for queries in asked]
        for share in SHARES:
            tried = [np.union1d(self._nearest(queries, CANDIDATES, share), self._lifted) for queries in asked]
            if np.mean([len(np.intersect1d(one, best)) for one, best in zip(tried, wanted, strict=True)]) >= 100 * WANTED:
                return share
        return 1.0


def trials_of(vectors: FloatArray, vector_of: Callable[[Histories], FloatArray]) -> Trials:
    """Histories of items that lie together, by which an index is tried.

    Args:
        vectors: float32 [items, dim].
        vector_of: the user vector of a history.
    """
    random, found = np.random.default_rng(0), []
    for item in random.integers(0, len(vectors), TRIED):
        near = np.argsort(-(vectors @ vectors[item]), kind="stable")[:50]
        histories = Histories.of_items([random.permutation(near)[:10].tolist()])
        found.append((histories, vector_of(histories)))
    return found


def _columns(member: Member) -> FloatArray:
    """What a member that is dense has for each item, float32 [n, columns]; without the trace of popularity of factors."""
    return member.rows[:, :-1] if isinstance(member, Factors) else member.values[:, None]  # type: ignore[attr-defined]
