"""Baseline item_knn: items whose users are like those of the history's items (cosine of TF-IDF weights)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from implicit.nearest_neighbours import ItemItemRecommender
from numpy.typing import NDArray
from scipy import sparse

from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.models.baselines.interactions import interactions, popularity_prior
from nightloom.models.scorers.popularity import positive_counts


class ItemKNN(Recommender):
    """Item neighbourhoods over users (Sarwar et al. 2001, Item-based collaborative filtering recommendation algorithms).

    A user's weight is the inverse document frequency, log(items / items of the user): those who have everything say little.
    Similarity is the cosine. An item keeps its `neighbours` nearest, found by `implicit`; a history's score sums over its items.

    The weights are ours, since those of `implicit.TFIDFRecommender` are zero or negative for users of nearly every item.

    Args:
        neighbours: neighbours kept for each item; one more where that many have the very same users.
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
        weights = sparse.diags_array(np.log(max(n_items, 1) / activity) + 1e-3) @ matrix
        norms = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=0)).ravel())
        unit = sparse.csr_matrix(weights @ sparse.diags_array(1 / np.where(norms > 0, norms, 1)))
        search = ItemItemRecommender(K=self.neighbours + 1, num_threads=1)  # each item is its own nearest neighbour
        search.fit(unit, show_progress=False)
        self.similar = search.similarity.astype(np.float32)
        self.similar.setdiag(0)
        self.similar.eliminate_zeros()
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
