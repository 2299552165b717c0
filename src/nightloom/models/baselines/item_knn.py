"""Family item_knn: items whose users are like those of the history's items (cosine over TF-IDF weights)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nightloom.core.ragged import owners
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.core.top_k import top_k
from nightloom.models.scorers.popularity import positive_counts

TIE_BREAK = 1e-6
"""Weight of popularity (scaled to 1) beside a model's own score: orders ties and empty histories, changes nothing else."""

BLOCK_CELLS = 1 << 24
"""Cells of the dense similarity block that is held at once (64 MiB)."""


def interactions(histories: Histories, n_items: int) -> sparse.csr_matrix:
    """Which items each history has positive events on: float32 [len(histories), n_items], ones and zeros."""
    owner = owners(histories.offsets)[histories.positive]
    items = histories.items[histories.positive]
    matrix = sparse.csr_matrix((np.ones(len(items), dtype=np.float32), (owner, items)), shape=(len(histories), n_items))
    matrix.data[:] = 1  # repeats were summed
    return matrix


def popularity_prior(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """What is added to every score, float32 [items]: a trace of popularity, and -inf where an item was never seen in training."""
    trace = TIE_BREAK * counts / max(counts.max(initial=0), 1)
    return np.where(counts > 0, trace, -np.inf).astype(np.float32)


class ItemKNN(Recommender):
    """Item neighbourhoods over users.

    Users are weighted by inverse document frequency, log(items / events of the user), so that those who
    have everything say little; similarity is the cosine; an item keeps its `neighbours` nearest
    (Sarwar et al. 2001, Item-based collaborative filtering). A history's score is the sum over its items.

    Args:
        neighbours: neighbours kept for each item.
    """

    family: ClassVar[str] = "item_knn"

    def __init__(self, neighbours: int = 100) -> None:
        self.neighbours = neighbours

    def fit(self, train: Histories, n_items: int) -> Self:
        """Find each item's neighbours."""
        self.n_items = n_items
        self.counts = positive_counts(train, n_items)
        matrix = interactions(train, n_items)
        activity = np.maximum(np.diff(matrix.indptr), 1)
        weights = sparse.diags_array(np.log(max(n_items, 1) / activity).astype(np.float32) + 1e-3) @ matrix
        norms = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=0)).ravel())
        unit = (weights @ sparse.diags_array(1 / np.where(norms > 0, norms, 1).astype(np.float32))).tocsr()
        self.similar = _nearest(unit, min(self.neighbours, max(n_items - 1, 1)))
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Summed similarity to the history, float32 [len(histories), n_items]; -inf for items never seen in training."""
        return (interactions(histories, self.n_items) @ self.similar).toarray() + popularity_prior(self.counts)

    def save(self, folder: Path) -> None:
        """Write `item_knn.npz`."""
        parts = {name: getattr(self.similar, name) for name in ("data", "indices", "indptr")}
        np.savez(folder / "item_knn.npz", counts=self.counts, neighbours=self.neighbours, **parts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / "item_knn.npz", allow_pickle=False) as arrays:
            model = cls(int(arrays["neighbours"]))
            model.counts = arrays["counts"]
            model.n_items = len(model.counts)
            parts = (arrays["data"], arrays["indices"], arrays["indptr"])
            model.similar = sparse.csr_matrix(parts, shape=(model.n_items, model.n_items))
        return model


def keep_largest(block: NDArray[np.float32], k: int) -> sparse.csr_matrix:
    """The k largest values of each row that are not zero, ties by column, as a sparse matrix."""
    columns = np.sort(top_k(block, k), axis=1)
    kept = np.zeros_like(block)
    np.put_along_axis(kept, columns, np.take_along_axis(block, columns, axis=1), axis=1)
    return sparse.csr_matrix(kept)


def _nearest(unit: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """The k largest positive cosines of each item with others, ties by id; a block of items at a time, so memory stays bounded."""
    n_items = unit.shape[1]
    by_item = unit.T.tocsr()
    step = max(1, BLOCK_CELLS // max(n_items, 1))
    blocks = []
    for first in range(0, n_items, step):
        block = (by_item[first : first + step] @ unit).toarray()
        local = np.arange(len(block))
        block[local, first + local] = 0
        blocks.append(keep_largest(block, k))
    return sparse.vstack(blocks, format="csr") if blocks else sparse.csr_matrix((0, 0), dtype=np.float32)
