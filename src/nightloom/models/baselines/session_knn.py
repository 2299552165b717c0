"""Baseline session_knn: what followed in the sessions that are most like the present one (V-SkNN)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nightloom.core.ragged import ages, offsets_of, owners
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.models.baselines.interactions import BLOCK_CELLS, interactions, popularity_prior
from nightloom.models.baselines.profile import positive_events
from nightloom.models.baselines.user_knn import keep_largest
from nightloom.models.scorers.popularity import positive_counts

GAP = 86_400
"""Seconds without an event after which a new session begins."""


class SessionKNN(Recommender):
    """Vector multiplication session-based kNN (Ludewig and Jannach 2018, Evaluation of session-based recommendation algorithms, 3.2).

    Training histories are cut into sessions where a day passes without an event; without times each is one. A history's latest events
    weigh the more the later they are, linearly; its neighbours are the sessions with the largest sum of these weights over shared
    items. An item's score is the summed similarity of the neighbours that have it, times its inverse document frequency.

    Args:
        neighbours: sessions whose items count.
        memory: latest positive events of a history that are looked at.
        most_sessions: sessions that are kept, the latest ones.
    """

    family: ClassVar[str] = "session_knn"

    def __init__(self, neighbours: int = 100, memory: int = 20, most_sessions: int = 200_000) -> None:
        self.neighbours, self.memory, self.most_sessions = neighbours, memory, most_sessions

    def fit(self, train: Histories, n_items: int) -> Self:
        """Cut the histories into sessions and weigh the items."""
        liked = positive_events(train)
        owner = owners(liked.offsets)
        begins = np.ones(len(owner), dtype=bool)
        begins[1:] = (owner[1:] != owner[:-1]) | (np.diff(liked.times) > GAP)
        first = np.flatnonzero(begins)
        latest = np.sort(np.argsort(liked.times[first], kind="stable")[-self.most_sessions :])
        session = np.cumsum(begins) - 1
        kept = np.isin(session, latest)
        offsets = offsets_of(np.bincount(np.searchsorted(latest, session[kept]), minlength=len(latest)))
        sessions = liked.of_events(kept, offsets)
        return self._keep(positive_counts(train, n_items), interactions(sessions, n_items))

    def _keep(self, counts: NDArray[np.int64], matrix: sparse.csr_matrix) -> Self:
        """Keep how often items were seen, and the sessions' items; the items' weights follow."""
        self.counts, self.matrix, self.n_items = counts, matrix, len(counts)
        holders = np.bincount(matrix.indices, minlength=self.n_items)
        self.weights = np.log1p(max(matrix.shape[0], 1) / np.maximum(holders, 1)).astype(np.float32)
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Weighted similarity of the neighbours that have each item, float32 [len(histories), n_items]; -inf for items never seen."""
        out = np.tile(popularity_prior(self.counts), (len(histories), 1))
        liked = positive_events(histories)
        age = ages(liked.offsets)
        near = age < self.memory
        weight = (1 - age[near] / self.memory).astype(np.float32)
        place = (owners(liked.offsets)[near], liked.items[near])
        asked = sparse.csr_matrix((weight, place), shape=(len(histories), self.n_items))
        step = max(1, BLOCK_CELLS // max(self.matrix.shape[0], self.n_items, 1))
        for first in range(0, len(histories), step):
            similar = (asked[first : first + step] @ self.matrix.T).toarray()
            out[first : first + step] += (keep_largest(similar, self.neighbours) @ self.matrix).toarray() * self.weights
        return out

    def save(self, folder: Path) -> None:
        """Write `session_knn.npz`."""
        settings = {name: getattr(self, name) for name in ("neighbours", "memory", "most_sessions")}
        np.savez(folder / "session_knn.npz", counts=self.counts, indices=self.matrix.indices, indptr=self.matrix.indptr, **settings)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / "session_knn.npz", allow_pickle=False) as arrays:
            model = cls(*(int(arrays[name]) for name in ("neighbours", "memory", "most_sessions")))
            parts = (np.ones(len(arrays["indices"]), dtype=np.float32), arrays["indices"], arrays["indptr"])
            return model._keep(arrays["counts"], sparse.csr_matrix(parts, shape=(len(parts[2]) - 1, len(arrays["counts"]))))
