"""Scorer linear: what people chose, rebuilt by least squares from what else they chose; the strongest weights of it."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories
from nightloom.core.top_k import top_k
from nightloom.models.scorers.item_graph import Edges, ItemGraph, joined
from nightloom.models.scorers.popularity import positive_counts
from nightloom.models.scorers.sparse import runs

MOST_ITEMS = 4_000
"""Items that are joined: of more, those chosen most. Their inverse takes seconds of one core and .4 GB."""


class Linear(ItemGraph):
    """EASE (Steck 2019, Embarrassingly shallow autoencoders for sparse data), of which each item keeps its strongest weights.

    With P the inverse of X'X + l2 * identity, the weights are B = -P / diag(P), zero on the diagonal. A weight may be negative.
    It is for data without times (`training.run`): there it is the strongest scorer, and every event of a history says as much as
    another. Where the latest events say most, the graph and co-occurrence say what it knows.

    Args:
        l2: weight on the squared weights.
        neighbours: edges kept from each item.
        recency: weight lost with each event of age.
        memory: latest events of a history that are looked at.
        min_support: users that must have both items, one at least.
    """

    family: ClassVar[str] = "linear"
    settings: ClassVar[tuple[str, ...]] = ("l2", "neighbours", "recency", "memory", "min_support")

    def __init__(self, l2: float = 200.0, neighbours: int = 200, recency: float = 1.0, memory: int = 200, min_support: int = 1) -> None:
        super().__init__(recency, memory, min_support)
        self.l2, self.neighbours = l2, neighbours

    def fit(self, train: Histories, n_items: int) -> Self:
        """Solve for the weights between the items chosen most; only positive events count."""
        counts = positive_counts(train, n_items)
        some = np.sort(np.argsort(-counts, kind="stable")[:MOST_ITEMS])
        some = some[counts[some] > 0]
        together = _together(train, some, n_items)
        inverse = np.linalg.inv(together + self.l2 * np.eye(len(some)))  # double: rounded, it is the same for any number of threads
        weights = (inverse / -np.diag(inverse)).astype(np.float32)
        weights[together < self.min_support] = 0
        np.fill_diagonal(weights, 0)
        found: list[Edges] = []
        for rows in runs(np.full(len(some), len(some))):
            source, target, value = _strongest(weights[rows], self.neighbours)
            found.append((some[rows][source], some[target], value))
        return self._take(*joined(found), counts)


def _together(train: Histories, some: NDArray[np.int64], n_items: int) -> NDArray[np.float32]:
    """Users who chose both of two items, float32 [some, some]; on the diagonal, those who chose the one."""
    size = len(some)
    place = np.full(n_items, -1, dtype=np.int64)
    place[some] = np.arange(size)
    kept = train.positive & (place[train.items] >= 0)
    user, item = np.divmod(np.unique(owners(train.offsets)[kept] * size + place[train.items[kept]]), max(size, 1))
    ends = np.searchsorted(user, np.arange(len(train) + 1))
    together = np.zeros((size, size), dtype=np.float32)
    for rows in runs(np.full(len(train), size)):
        block = np.zeros((rows.stop - rows.start, size), dtype=np.float32)
        part = slice(ends[rows.start], ends[rows.stop])
        block[user[part] - rows.start, item[part]] = 1
        together += block.T @ block
    return together


def _strongest(block: NDArray[np.float32], k: int) -> Edges:
    """The k weights of each row that are furthest from zero, as edges from row to column, ordered by both."""
    columns = np.sort(top_k(np.abs(block), k), axis=1)
    values = np.take_along_axis(block, columns, axis=1)
    row, place = np.nonzero(values)
    return row, columns[row, place], values[row, place]
