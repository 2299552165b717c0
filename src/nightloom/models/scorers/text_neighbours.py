"""Scorer text_neighbours: items whose text is like that of the history's items, items without events included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from nightloom.core.ragged import offsets_of
from nightloom.core.sequences import Histories
from nightloom.models.scorers.item_graph import Edges, ItemGraph, joined
from nightloom.models.scorers.nearest import EXACT, nearest, nearest_in_cells

if TYPE_CHECKING:
    from torch import Tensor

ENOUGH_TEXTS = 4
"""Texts a direction from which vectors are whitened; of fewer, all would be alike far from all others, so they are only centred."""


@dataclass(frozen=True)
class TextSpace:
    """How text vectors become vectors whose inner products are compared.

    Attributes:
        mean: float32 [text_dim].
        directions: float32 [text_dim, width], by which vectors are whitened; None: they are only centred.
    """

    mean: Tensor
    directions: Tensor | None

    def __call__(self, text: Tensor, has_text: Tensor, *, half: bool = False) -> Tensor:
        """Vectors of length one, float32 [items, width], or float16; zero without text. Arguments as in `TextNeighbours.read`."""
        import torch  # here, since neighbours that were found are read where there is no torch

        from nightloom.encoders.whitening import BLOCK, ROWS

        width = text.shape[1] if self.directions is None else self.directions.shape[1]
        found = text.new_empty(len(text), width, dtype=torch.float16 if half else text.dtype)
        with torch.no_grad():
            for first in range(0, len(text), step := BLOCK if half else ROWS):  # no second copy of a large catalogue
                rows = slice(first, first + step)
                centred = text[rows] - self.mean
                found[rows] = torch.nn.functional.normalize(centred if self.directions is None else centred @ self.directions)
                found[rows] *= has_text[rows, None]
        return found

    def arrays(self) -> dict[str, Tensor]:
        """What is kept of it by name."""
        return {"mean": self.mean} if self.directions is None else {"mean": self.mean, "directions": self.directions}


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
        if len(text) > EXACT:
            return self.read_unit(self.space(text, has_text)(text, has_text, half=True), has_text)
        unit, counts = self.space(text, has_text)(text, has_text), has_text.numpy().astype(np.int64)
        near = nearest(unit, np.arange(len(unit)), self.neighbours)
        found: list[Edges] = [(source, target, cosines**2) for source, target, cosines in near]
        return self._take(*joined(found), counts)

    def read_unit(self, unit: Tensor, has_text: Tensor) -> Self:
        """As `read`, of a large catalogue, from what `TextSpace` gives in half precision."""
        targets, cosines = nearest_in_cells(unit, self.neighbours)
        kept = cosines > 0
        offsets, whole = offsets_of(kept.sum(1)), bool(kept.all())
        targets = targets.reshape(-1) if whole else targets[kept]
        cosines = cosines.reshape(-1) if whole else cosines[kept]
        return self._keep(offsets, targets, np.square(cosines, out=cosines), has_text.numpy().astype(np.int64))

    @staticmethod
    def space(text: Tensor, has_text: Tensor) -> TextSpace:
        """Where the texts of a catalogue are compared; arguments as in `read`."""
        from nightloom.encoders.whitening import Whitening

        whiten = Whitening(text.shape[1])
        whiten.fit(text, has_text)
        enough = int(has_text.sum()) >= ENOUGH_TEXTS * whiten.width
        return TextSpace(whiten.mean, whiten.directions if enough else None)

    def fit(self, train: Histories, n_items: int) -> Self:  # noqa: ARG002  # the verb of every recommender
        """Nothing is learned from histories: the edges are those of `read`."""
        if n_items != self.n_items:
            raise ValueError(f"text_neighbours: made of {self.n_items:,} items, fitted on {n_items:,}")
        return self


def unit_of(white: Tensor, has_text: Tensor) -> Tensor:
    """Whitened vectors as vectors of length one, float16 [items, width]; zero without text."""
    import torch

    from nightloom.encoders.whitening import BLOCK

    found = white.new_empty(white.shape, dtype=torch.float16)
    for first in range(0, len(white), BLOCK):
        rows = slice(first, first + BLOCK)
        found[rows] = torch.nn.functional.normalize(white[rows].float()) * has_text[rows, None]
    return found
