"""Scorer als: matrix factorisation of implicit feedback by alternating least squares, asked by recency-weighted histories.

Needs numpy alone: training workers on bare machines fit it, and the service solves for a history as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.moments import Moments, VectorMoments
from nightloom.core.ragged import ages, offsets_among, offsets_of, owners
from nightloom.core.recommender import Scorer
from nightloom.core.sequences import Histories
from nightloom.models.scorers.popularity import positive_counts

if TYPE_CHECKING:
    from nightloom.models.scorers.newcomers import Newcomers

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]

TRACE = 1e-6
"""Weight of popularity (scaled to 1) beside the factors' score: orders ties and empty histories, changes nothing else."""
MOST_USERS = 100_000
"""Histories that are factorised; of more, a sample is drawn: item factors need no more, and every history is solved for when asked."""
BLOCK_CELLS = 1 << 22
"""Numbers of padded rows that are held at once."""
DRAWN = 1 << 14
"""Items whose first factors are drawn at once."""
MANY_ROWS, FEW = 200_000, 4
"""Rows from which on those with few entries, a quarter of the factors at most, are solved for by their entries."""


class ALS(Scorer):
    """Weighted matrix factorisation (Hu, Koren and Volinsky 2008, Collaborative filtering for implicit feedback datasets).

    A history's user factors are solved for at query time against the fixed item factors (their equation 4), so a user never seen in
    training is served like any other. An event with the weight w = recency^age has confidence 1 + w and preference 2 w / (1 + w): what
    was liked last counts most, and the oldest events fade to what was never seen.

    Args:
        factors: width of the factors.
        iterations: alternations.
        regularization: L2 weight on the factors.
        recency: confidence lost with each later event; 1 makes all events of a history count alike.
        memory: latest positive events of a history that are looked at.
        seed: of the first factors.
    """

    family: ClassVar[str] = "als"
    settings: ClassVar[tuple[str, ...]] = ("factors", "iterations", "regularization", "recency", "memory", "seed")

    def __init__(
        self,
        factors: int = 64,
        iterations: int = 10,
        regularization: float = 10.0,
        recency: float = 0.95,
        memory: int = 128,
        seed: int = 7,
    ) -> None:
        self.factors, self.iterations, self.regularization = factors, iterations, regularization
        self.recency, self.memory, self.seed = recency, memory, seed

    def fit(self, train: Histories, n_items: int) -> Self:
        """Factorise the matrix of histories and items, ones where a history has a positive event on an item."""
        pairs = np.unique(owners(train.offsets)[train.positive] * np.int64(n_items) + train.items[train.positive])
        user, item = np.divmod(pairs, max(n_items, 1))
        random = np.random.default_rng(self.seed)
        if len(train) > MOST_USERS:
            drawn = np.zeros(len(train), dtype=bool)
            drawn[random.choice(len(train), MOST_USERS, replace=False)] = True
            user, item = user[drawn[user]], item[drawn[user]]
        user = np.unique(user, return_inverse=True)[1]
        by_user = offsets_of(np.bincount(user))
        order = np.argsort(item, kind="stable")
        by_item = offsets_of(np.bincount(item, minlength=n_items))
        items = np.empty((n_items, self.factors), dtype=np.float32)
        for first in range(0, n_items, DRAWN):  # double precision of all of them would be twice the memory of the model
            rows = items[first : first + DRAWN]
            rows[:] = random.standard_normal(rows.shape) / self.factors
        ones = np.ones(len(user), dtype=np.float32)
        for _ in range(self.iterations):
            users = self._solved(items, item, ones, by_user)
            items = self._solved(users, user[order], ones, by_item)
        return self._keep(items, positive_counts(train, n_items))

    def expect(self, newcomers: Newcomers) -> None:
        """Give items that nobody has acted on the factors that are expected of them."""
        self.vectors[newcomers.items, :-1] = newcomers.expect(self.vectors[:, :-1])
        self.moments = VectorMoments(self.vectors)

    def _keep(self, factors: FloatArray, popularity: IntArray) -> Self:
        """Keep the item factors; a last column holds the trace of popularity."""
        self.n_items, self.popularity = len(popularity), popularity
        trace = TRACE * popularity / max(int(popularity.max(initial=0)), 1)
        self.vectors = np.column_stack([factors, trace]).astype(np.float32)
        self.gram = _gram(factors[popularity > 0], self.regularization)  # what is expected of the others says nothing of histories
        self.moments = VectorMoments(self.vectors)
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Inner products of the history's factors and each item's, float32 [len(histories), n_items]; about 0 for items of which nothing is
        known or expected.
        """
        return self.user_vectors(histories) @ self.vectors.T

    def candidate_scores(self, histories: Histories, candidates: NDArray[np.int64]) -> tuple[NDArray[np.float32], Moments]:
        """As `Scorer.candidate_scores`, in closed form."""
        users = self.user_vectors(histories)
        return np.einsum("nd,nkd->nk", users, self.vectors[candidates]), self.moments(users)

    def user_vectors(self, histories: Histories) -> FloatArray:
        """The factors of each history, and a 1 for the trace of popularity: float32 [len(histories), factors + 1]."""
        age = ages(offsets_among(histories.offsets, histories.positive))
        near = age < self.memory
        kept = np.flatnonzero(histories.positive)[near]
        offsets = offsets_of(np.bincount(owners(histories.offsets)[kept], minlength=len(histories)))
        weights = np.power(self.recency, age[near]).astype(np.float32)
        solved = self._solved(self.vectors[:, :-1], histories.items[kept], weights, offsets, self.gram)
        return np.column_stack([solved, np.ones(len(solved), dtype=np.float32)])

    def _solved(
        self, fixed: FloatArray, columns: NDArray[np.integer], weights: FloatArray, offsets: IntArray, gram: FloatArray | None = None
    ) -> FloatArray:
        """Equation 4 for each row of a ragged matrix, float32 [rows, factors]; a row without entries is zero.

        Args:
            fixed: float32 [columns, factors], the other side.
            columns: int [entries].
            weights: float32 [entries], from 0 (never seen) to 1; confidence beyond 1.
            offsets: int64 [rows + 1].
            gram: what `_gram` gives for `fixed`, where it is known.
        """
        gram = _gram(fixed, self.regularization) if gram is None else gram
        found = np.zeros((len(offsets) - 1, fixed.shape[1]), dtype=np.float32)
        inverse = np.linalg.inv(gram.astype(np.float64)).astype(np.float32) if len(found) > MANY_ROWS else None
        for rows, place, inside in _padded(offsets, fixed.shape[1]):
            vectors = fixed[columns[place]] * inside[:, :, None]
            confidence = weights[place] * inside
            if inverse is not None and place.shape[1] <= fixed.shape[1] // FEW:
                found[rows] = _by_entries(inverse, vectors, confidence)
                continue
            left = gram + (vectors * confidence[:, :, None]).transpose(0, 2, 1) @ vectors
            right = 2 * (confidence[:, None, :] @ vectors)[:, 0]
            found[rows] = np.linalg.solve(left, right[:, :, None])[:, :, 0]
        return found

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Self:
        """The same over another catalogue; its new items have no factors yet."""
        factors, popularity = np.zeros((n_items, self.factors), dtype=np.float32), np.zeros(n_items, dtype=np.int64)
        here = np.flatnonzero(rows >= 0)
        factors[rows[here]], popularity[rows[here]] = self.vectors[here, :-1], self.popularity[here]
        return type(self)(**self._settings())._keep(factors, popularity)

    def save(self, folder: Path) -> None:
        """Write `als.npz`."""
        np.savez(folder / f"{self.family}.npz", factors_=self.vectors[:, :-1], popularity=self.popularity, **self._settings())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / f"{cls.family}.npz", allow_pickle=False) as content:
            model = cls(**{name: content[name].item() for name in cls.settings})
            return model._keep(content["factors_"], content["popularity"])

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.settings}


def _gram(vectors: FloatArray, regularization: float) -> FloatArray:
    """Products of all pairs of factors over one side, with the regularisation on the diagonal: float32 [factors, factors]."""
    found: FloatArray = vectors.T @ vectors + np.float32(regularization) * np.eye(vectors.shape[1], dtype=np.float32)
    return found


def _by_entries(inverse: FloatArray, vectors: FloatArray, confidence: FloatArray) -> FloatArray:
    """Equation 4 by a system of the entries in place of one of the factors (push-through identity), float32 [rows, factors].

    (G + V'CV)^-1 V'd = G^-1 V' (1 + C V G^-1 V')^-1 d, with d = 2c: of rows with few entries much smaller systems.

    Args:
        inverse: float32 [factors, factors], G^-1.
        vectors: float32 [rows, entries, factors], V; zero where a row has no entry.
        confidence: float32 [rows, entries], c.
    """
    spread = vectors @ inverse
    left = confidence[:, :, None] * (spread @ vectors.transpose(0, 2, 1))
    left[:, np.arange(left.shape[1]), np.arange(left.shape[1])] += 1
    solved = np.linalg.solve(left, 2 * confidence[:, :, None])
    found: FloatArray = (solved.transpose(0, 2, 1) @ spread)[:, 0]
    return found


def _padded(offsets: IntArray, width: int) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    """Rows of a ragged matrix in blocks of like length: their numbers, the places of their entries [rows, longest], and 1 where one is."""
    lengths = np.diff(offsets)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and (last + 1 - first) * (lengths[order[last]] + width) * width <= BLOCK_CELLS:
            last += 1
        rows = order[first:last]
        place = np.arange(lengths[rows[-1]])
        inside = place < lengths[rows][:, None]
        yield rows, np.where(inside, offsets[:-1][rows][:, None] + place, 0), inside.astype(np.float32)
        first = last
