"""Baseline word2vec: item vectors from histories read as sentences."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from gensim.models import Word2Vec
from numpy.typing import NDArray

from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.models.baselines.interactions import popularity_prior
from nightloom.models.baselines.profile import positive_events, recency_bags
from nightloom.models.scorers.popularity import positive_counts

SETTINGS = ("dim", "window", "epochs", "negatives", "exponent", "sample", "recency", "seed")


class ItemWord2Vec(Recommender):
    """Skip-gram with negative sampling over histories (Mikolov et al. 2013; Barkan and Koenigstein 2016, Item2vec).

    A history is the recency-weighted mean of its items' vectors. An item's score is the inner product of that mean with
    the item's context vector: what skip-gram itself says of how likely the item stands near those of the history.
    The defaults were found on MovieLens-100K's validation part, leave-one-out,
    where gensim's own for text give NDCG@10 .045 and these .127; evenly drawn negatives (.084 at exponent .5) did most of it.

    Args:
        dim: width of the vectors.
        window: most items between a pair.
        epochs: passes over the histories.
        negatives: drawn items for each pair.
        exponent: negatives are drawn by popularity to this power (Caselles-Dupré et al. 2018, Word2vec applied to
            recommendation: hyperparameters matter, on why not text's .75).
        sample: popularity beyond which items are left out at random; 0 leaves none out.
        recency: weight that an event loses with each later one when a history is answered.
        seed: seed of vectors and draws; one thread draws them, so a seed gives one result.
    """

    family: ClassVar[str] = "word2vec"

    def __init__(
        self,
        dim: int = 64,
        window: int = 3,
        epochs: int = 15,
        negatives: int = 10,
        exponent: float = 0.0,
        sample: float = 0.0,
        recency: float = 0.7,
        seed: int = 7,
    ) -> None:
        self.dim, self.window, self.epochs, self.negatives = dim, window, epochs, negatives
        self.exponent, self.sample, self.recency, self.seed = exponent, sample, recency, seed

    def fit(self, train: Histories, n_items: int) -> Self:
        """Learn the vectors from positive events in their order."""
        self.n_items = n_items
        self.counts = positive_counts(train, n_items)
        self.vectors, self.contexts = (np.zeros((n_items, self.dim), dtype=np.float32) for _ in range(2))
        liked = positive_events(train)
        sentences = [one.tolist() for one in np.split(liked.items, liked.offsets[1:-1])]
        model = Word2Vec(
            vector_size=self.dim,
            window=self.window,
            epochs=self.epochs,
            negative=self.negatives,
            ns_exponent=self.exponent,
            sample=self.sample,
            sg=1,
            min_count=1,
            workers=1,
            seed=self.seed,
        )
        model.build_vocab(sentences)
        if len(model.wv):
            model.train(sentences, total_examples=len(sentences), epochs=self.epochs)
            known = np.array(model.wv.index_to_key, dtype=np.int64)
            self.vectors[known], self.contexts[known] = model.wv.vectors, model.syn1neg
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Inner products of the history's mean and each item's context, float32 [len(histories), n_items]; -inf for items never seen."""
        means = recency_bags(histories, self.n_items, self.recency) @ self.vectors
        return means @ self.contexts.T + popularity_prior(self.counts)

    def save(self, folder: Path) -> None:
        """Write `word2vec.npz`."""
        arrays = {name: getattr(self, name) for name in ("counts", "vectors", "contexts", *SETTINGS)}
        np.savez(folder / "word2vec.npz", **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / "word2vec.npz", allow_pickle=False) as arrays:
            model = cls(*(arrays[name].item() for name in SETTINGS))
            for name in ("counts", "vectors", "contexts"):
                setattr(model, name, arrays[name])
        model.n_items = len(model.counts)
        return model
