"""Scorer cooccurrence: of those who had this item, how many had that one."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from nightloom.core.ragged import ages, gather, offsets_of, owners
from nightloom.core.sequences import Histories
from nightloom.models.scorers.item_graph import BLOCK_CELLS, Edges, ItemGraph, joined, strongest


class Cooccurrence(ItemGraph):
    """Conditional probability of one item given another, whatever their order.

    The edge from i to j is C[i, j] / (n[i] + shrink), where C counts users with both and n those with i (Deshpande and Karypis
    2004, Item-based top-N recommendation algorithms, 4.1.2, without their penalty on popular items: what is liked by all is what
    the transition graph, which has that penalty, can not say). `shrink` takes weight from items that few have had.

    Args:
        shrink: users that are added to those of each item.
        neighbours: edges kept from each item.
        recency: weight lost with each event of age.
        memory: latest events of a history that are looked at.
        span: latest events of a history that are counted, since pairs grow with the square of it.
    """

    family: ClassVar[str] = "cooccurrence"
    settings: ClassVar[tuple[str, ...]] = ("shrink", "neighbours", "recency", "memory", "span")

    def __init__(self, shrink: float = 20.0, neighbours: int = 200, recency: float = 0.9, memory: int = 32, span: int = 200) -> None:
        super().__init__(recency, memory)
        self.shrink, self.neighbours, self.span = shrink, neighbours, span

    def fit(self, train: Histories, n_items: int) -> Self:
        """Count users by pair of items; only positive events count."""
        age = ages(train.offsets)
        kept = train.positive & (age < self.span)
        pairs = np.unique(owners(train.offsets)[kept] * np.int64(n_items) + train.items[kept])
        user, item = np.divmod(pairs, max(n_items, 1))
        had = np.searchsorted(user, np.arange(len(train) + 1))  # user u's items are item[had[u]:had[u + 1]]
        holders = np.argsort(item, kind="stable")  # item i's users are user[holders[held[i]:held[i + 1]]]
        held = np.searchsorted(item[holders], np.arange(n_items + 1))
        found: list[Edges] = []
        work = offsets_of(np.diff(had)[user[holders]])[held]  # pairs of all items before each
        first = 0
        while first < n_items:
            last = max(first + 1, min(first + BLOCK_CELLS // n_items, int(np.searchsorted(work, work[first] + BLOCK_CELLS, "right")) - 1))
            who = user[holders[held[first] : held[last]]]
            many = np.diff(had)[who]
            at = gather(had[who], many)
            row = np.repeat(owners(held[first : last + 1]), many)
            block = np.bincount(row * n_items + item[at], minlength=(last - first) * n_items).reshape(-1, n_items).astype(np.float32)
            here = np.arange(first, last)
            block[here - first, here] = 0
            rows, columns, counts = strongest(block, self.neighbours)
            found.append((here[rows], columns, counts / (np.diff(held)[here[rows]] + np.float32(self.shrink))))
            first = last
        return self._take(*joined(found), np.bincount(train.items[train.positive], minlength=n_items))
