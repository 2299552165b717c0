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

from nightloom.core.ragged import gather, offsets_of
from nightloom.models.scorers.nearest import EXACT, nearest
from nightloom.models.scorers.text_neighbours import TextNeighbours

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 50
"""Nearest texts of an item that are looked at."""
SAME = 0.01
"""Distance below which texts count as the same; a distance is 1 - cosine."""
NOTHING = 0.01
"""Weight of knowing nothing, beside that of the neighbours: without near texts little is expected."""
MANY = 50_000
"""Items above which those with as many neighbours are taken together; one by one they take 15 microseconds each."""
AT_ONCE = 1 << 22
"""Numbers that are held at once then."""


def expected(cosines: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The shrunk mean of what is known of an item's neighbours, float64 [width].

    Args:
        cosines: squared cosines of the item's text and theirs, [neighbours].
        values: what is known of them, [neighbours, width].
    """
    weights = weights_of(cosines)
    found: NDArray[np.float64] = weights @ values / (weights.sum() + NOTHING)
    return found


def weights_of(cosines: NDArray[np.floating]) -> NDArray[np.float64]:
    """How much neighbours count, by their squared cosines, of any shape."""
    squared = cosines.astype(np.float64)
    found: NDArray[np.float64] = np.square(squared / (1 + SAME - np.minimum(np.sqrt(squared), 1)))
    return found


@dataclass(frozen=True)
class Newcomers:
    """Items of a catalogue that nobody has acted on, and their neighbours by text among those that are known.

    Attributes:
        items: int64 [n], dense.
        offsets: int64 [n + 1], of their neighbours.
        neighbours: int32 or int64 [neighbours], dense items.
        cosines: float32 [neighbours], squared.
    """

    items: NDArray[np.int64]
    offsets: NDArray[np.int64]
    neighbours: NDArray[np.integer]
    cosines: NDArray[np.float32]

    @classmethod
    def find(
        cls,
        text: Tensor,
        has_text: Tensor,
        known: NDArray[np.bool_],
        fresh: NDArray[np.bool_] | None = None,
        near: TextNeighbours | None = None,
    ) -> Self:
        """Search a catalogue.

        Args:
            text: float32 [items, text_dim], vectors of the language model.
            has_text: bool [items].
            known: bool [items], which somebody has acted on.
            fresh: bool [items], of which something is to be expected, unless they are known; None: all.
            near: neighbours of all items of a large catalogue; None: they are searched for.
        """
        items = np.flatnonzero(has_text.numpy() & ~known & (True if fresh is None else fresh))
        if len(text) > EXACT:
            return cls._of(near or TextNeighbours(NEIGHBOURS).read(text, has_text), items, known)
        lengths, neighbours, cosines = np.zeros(len(items), np.int64), [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        if len(items) and known.any():
            unit = TextNeighbours.space(text, has_text)(text, has_text)
            for source, target, alike in nearest(unit, items, NEIGHBOURS):
                kept = known[target]
                lengths += np.bincount(source[kept], minlength=len(items))
                neighbours.append(target[kept])
                cosines.append(np.square(alike[kept]))
        return cls(items, offsets_of(lengths), np.concatenate(neighbours), np.concatenate(cosines))

    @classmethod
    def _of(cls, near: TextNeighbours, items: NDArray[np.int64], known: NDArray[np.bool_]) -> Self:
        """Those of some items among the neighbours of all."""
        many = np.diff(near.offsets)[items]
        edge = gather(near.offsets[items], many)
        kept = known[near.targets[edge]]
        lengths = np.bincount(np.repeat(np.arange(len(items)), many)[kept], minlength=len(items))
        return cls(items, offsets_of(lengths), near.targets[edge[kept]], near.weights[edge[kept]])

    def expect(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """What is expected of each, float64 [n, width], of what is known of all items, [items, width]."""
        if len(self.items) > MANY:
            return self._expect_many(values)
        spans = zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True)
        found = [expected(self.cosines[first:last], values[self.neighbours[first:last]]) for first, last in spans]
        return np.array(found, dtype=np.float64).reshape(len(self.items), values.shape[1])

    def _expect_many(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """As `expect`, of many items at once, those with as many neighbours together."""
        found = np.zeros((len(self.items), values.shape[1]))
        lengths = np.diff(self.offsets)
        order = np.argsort(lengths, kind="stable")
        for same in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            many = int(lengths[same[0]])
            if not many:
                continue
            for rows in np.array_split(same, -(-len(same) * many * values.shape[1] // AT_ONCE)):
                edge = self.offsets[:-1][rows][:, None] + np.arange(many)
                weights = weights_of(self.cosines[edge])
                found[rows] = (weights[:, None] @ values[self.neighbours[edge]])[:, 0] / (weights.sum(1, keepdims=True) + NOTHING)
        return found
