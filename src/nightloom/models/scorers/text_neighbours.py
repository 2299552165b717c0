"""Scorer text_neighbours: items whose text is like that of the history's items, items without events included."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from nightloom.core.sequences import Histories
from nightloom.models.scorers.item_graph import Edges, ItemGraph, joined, strongest
from nightloom.models.scorers.sparse import runs

if TYPE_CHECKING:
    from torch import Tensor

ENOUGH_TEXTS = 4
"""Texts a direction from which vectors are whitened; of fewer, all would be alike far from all others, so they are only centred."""


class TextNeighbours(ItemGraph):
    """The nearest texts of each text, by squared cosine of whitened sentence vectors (of centred ones in a small catalogue).

    Args:
        neighbours: edges kept from each item.
        recency: weight lost with each event of age.
        memory: latest events of a history that are looked at.
    """

    family: ClassVar[str] = "text_neighbours"
    settings: ClassVar[tuple[str, ...]] = ("neighbours", "recency", "memory")

    def __init__(self, neighbours: int = 50, recency: float = 0.8, memory: int = 32) -> None:
        super().__init__(recency, memory)
        self.neighbours = neighbours

    def read(self, text: Tensor, has_text: Tensor) -> Self:
        """Find the nearest texts of a catalogue; items without text have no edges and can not be ranked.

        Args:
            text: float32 [items, text_dim], vectors of the language model.
            has_text: bool [items].
        """
        import torch  # here, since neighbours that were found are read where there is no torch

        from nightloom.encoders.whitening import Whitening

        whiten = Whitening(text.shape[1])
        whiten.fit(text[has_text])
        with torch.no_grad():
            enough = int(has_text.sum()) >= ENOUGH_TEXTS * whiten.width
            unit = torch.nn.functional.normalize(whiten(text) if enough else text - whiten.mean) * has_text[:, None]
        found: list[Edges] = []
        for rows in runs(np.full(len(unit), len(unit))):
            source, target, cosines = strongest((unit[rows] @ unit.T).numpy(), rows.start, self.neighbours)
            found.append((source, target, cosines**2))
        return self._take(*joined(found), has_text.numpy().astype(np.int64))

    def fit(self, train: Histories, n_items: int) -> Self:  # noqa: ARG002  # the verb of every recommender
        """Nothing is learned from histories: the edges are those of `read`."""
        if n_items != self.n_items:
            raise ValueError(f"text_neighbours: made of {self.n_items:,} items, fitted on {n_items:,}")
        return self
