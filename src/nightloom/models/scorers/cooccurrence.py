"""Scorer cooccurrence: of the users of one item, how many are users of another."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import ages, gather, owners
from nightloom.core.sequences import Histories
from nightloom.models.scorers.item_graph import Edges, ItemGraph, joined, strongest
from nightloom.models.scorers.sparse import runs

SPARSE = 8
"""Cells of the table of items and items for each pair that was seen, from which on the table is not made."""


class Cooccurrence(ItemGraph):
    """Conditional probability of one item given another, whatever their order.

    The edge from i to j is C[i, j] / (n[i] + shrink), where C counts users with both and n those with i. See Deshpande and
    Karypis 2004, Item-based top-N recommendation algorithms, 4.1.2. Their penalty on popular items is left out, since the
    transition graph has one and can not say what is liked by all. `shrink` takes weight from items of few users.

    Args:
        shrink: users that are added to those of each item.
        neighbours: edges kept from each item.
        recency: weight lost with each event of age.
        memory: latest events of a history that are looked at.
        span: latest events of a history that are counted, since pairs grow with the square of it.
        min_support: users that must have both items, one at least.
    """

    family: ClassVar[str] = "cooccurrence"
    settings: ClassVar[tuple[str, ...]] = ("shrink", "neighbours", "recency", "memory", "span", "min_support")

    def __init__(
        self,
        shrink: float = 20.0,
        neighbours: int = 200,
        recency: float = 0.9,
        memory: int = 32,
        span: int = 200,
        min_support: int = 1,
    ) -> None:
        super().__init__(recency, memory, min_support)
        self.shrink, self.neighbours, self.span = shrink, neighbours, span

    def fit(self, train: Histories, n_items: int) -> Self:
        """Count users by pair of items; only positive events count."""
        kept = train.positive & (ages(train.offsets) < self.span)
        user, item = np.divmod(np.unique(owners(train.offsets)[kept] * n_items + train.items[kept]), max(n_items, 1))
        of_user = np.searchsorted(user, np.arange(len(train) + 1))  # user u's items are item[of_user[u]:of_user[u + 1]]
        users = user[np.argsort(item, kind="stable")]
        of_item = np.searchsorted(np.sort(item), np.arange(n_items + 1))  # item i's users are users[of_item[i]:of_item[i + 1]]
        pairs = np.bincount(owners(of_item), np.diff(of_user)[users], minlength=n_items).astype(np.int64)
        sparse = SPARSE * int(pairs.sum()) < n_items**2
        found: list[Edges] = []
        for rows in runs(pairs + 1 if sparse else np.maximum(pairs, n_items)):
            some = users[of_item[rows.start] : of_item[rows.stop]]
            many = np.diff(of_user)[some]
            row = np.repeat(owners(of_item[rows.start : rows.stop + 1]), many)
            key = row * n_items + item[gather(of_user[some], many)]
            if sparse:
                source, target, counts = self._strongest(key, rows.start, n_items)
            else:
                block = np.bincount(key, minlength=(rows.stop - rows.start) * n_items).reshape(-1, n_items).astype(np.float32)
                block[block < self.min_support] = 0
                source, target, counts = strongest(block, rows.start, self.neighbours)
            found.append((source, target, counts / (np.diff(of_item)[source] + np.float32(self.shrink))))
        return self._take(*joined(found), np.bincount(train.items[train.positive], minlength=n_items))

    def _strongest(self, key: NDArray[np.int64], first: int, n_items: int) -> Edges:
        """As `strongest`, from one key, row * n_items + item, for each pair that was seen: most cells of a large catalogue are empty."""
        cell, counts = np.unique(key, return_counts=True)
        source, target = np.divmod(cell[counts >= self.min_support], n_items)
        source, counts = source + first, counts[counts >= self.min_support].astype(np.float32)
        other = source != target
        source, target, counts = source[other], target[other], counts[other]
        order = np.lexsort((target, -counts, source))
        among = np.arange(len(order)) - np.searchsorted(source[order], source[order])  # place among those of the same row
        kept = np.sort(order[among < self.neighbours])
        return source[kept], target[kept], counts[kept]
