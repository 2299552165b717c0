"""Scorer text_neighbours: items whose text is like that of the history's items, those that nobody has had yet included."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from nightloom.core.sequences import Histories
from nightloom.encoders.whitening import Whitening
from nightloom.models.scorers.item_graph import BLOCK_CELLS, Edges, ItemGraph, joined, strongest

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
        whiten = Whitening(text.shape[1])
        whiten.fit(text[has_text])
        with torch.no_grad():
            enough = int(has_text.sum()) >= ENOUGH_TEXTS * whiten.width
            unit = torch.nn.functional.normalize(whiten(text) if enough else text - whiten.mean) * has_text[:, None]
        found: list[Edges] = []
        step = max(1, BLOCK_CELLS // max(len(unit), 1))
        for first in range(0, len(unit), step):
            block = (unit[first : first + step] @ unit.T).numpy()
            here = np.arange(first, first + len(block))
            block[here - first, here] = 0
            rows, columns, cosines = strongest(block, self.neighbours)
            found.append((here[rows], columns, cosines**2))
        return self._take(*joined(found), has_text.numpy().astype(np.int64))

    def fit(self, train: Histories, n_items: int) -> Self:  # noqa: ARG002  # the verb of every recommender
        """Nothing is learned from histories: the edges are those of `read`."""
        if n_items != self.n_items:
            raise ValueError(f"text_neighbours: made of {self.n_items:,} items, fitted on {n_items:,}")
        return self
