"""What is expected of items that nobody has acted on yet: what is known of those whose texts are most like theirs.

A new item has neither popularity nor factors. Without them it stands behind all others, however near its text is to what a person
likes. So it is given a mean over its neighbours, in which a text that is nearly the same counts far more than all others together
(inverse distance weighting, Shepard 1968). Evaluation, the registered model and the service expect alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import offsets_of
from nightloom.models.scorers.nearest import nearest
from nightloom.models.scorers.text_neighbours import TextNeighbours

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 50
"""Nearest texts of an item that are looked at."""
SAME = 0.01
"""Distance below which texts count as the same; a distance is 1 - cosine."""
NOTHING = 0.01
"""Weight of knowing nothing, beside that of the neighbours: without near texts little is expected."""


def expected(cosines: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The shrunk mean of what is known of an item's neighbours, float64 [width].

    Args:
        cosines: squared cosines of the item's text and theirs, [neighbours].
        values: what is known of them, [neighbours, width].
    """
    squared = cosines.astype(np.float64)
    weights = np.square(squared / (1 + SAME - np.minimum(np.sqrt(squared), 1)))
    found: NDArray[np.float64] = weights @ values / (weights.sum() + NOTHING)
    return found


@dataclass(frozen=True)
class Newcomers:
    """Items of a catalogue that nobody has acted on, and their neighbours by text among those that are known.

    Attributes:
        items: int64 [n], dense.
        offsets: int64 [n + 1], of their neighbours.
        neighbours: int64 [neighbours], dense items.
        cosines: float32 [neighbours], squared.
    """

    items: NDArray[np.int64]
    offsets: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    cosines: NDArray[np.float32]

    @classmethod
    def find(cls, text: Tensor, has_text: Tensor, known: NDArray[np.bool_], fresh: NDArray[np.bool_] | None = None) -> Self:
        """Search a catalogue.

        Args:
            text: float32 [items, text_dim], vectors of the language model.
            has_text: bool [items].
            known: bool [items], which somebody has acted on.
            fresh: bool [items], of which something is to be expected, unless they are known; None: all.
        """
        items = np.flatnonzero(has_text.numpy() & ~known & (True if fresh is None else fresh))
        lengths, neighbours, cosines = np.zeros(len(items), np.int64), [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        if len(items) and known.any():
            unit = TextNeighbours.space(text, has_text)(text, has_text)
            for source, target, near in nearest(unit, items, NEIGHBOURS):
                kept = known[target]
                lengths += np.bincount(source[kept], minlength=len(items))
                neighbours.append(target[kept])
                cosines.append(np.square(near[kept]))
        return cls(items, offsets_of(lengths), np.concatenate(neighbours), np.concatenate(cosines))

    def expect(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """What is expected of each, float64 [n, width], of what is known of all items, [items, width]."""
        spans = zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True)
        found = [expected(self.cosines[first:last], values[self.neighbours[first:last]]) for first, last in spans]
        return np.array(found, dtype=np.float64).reshape(len(self.items), values.shape[1])
