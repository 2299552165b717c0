"""Asking in words: items whose title or attributes match come first, then what is near by meaning, blended with what a person likes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightloom.core.int8_rows import int8_rows
from nightloom.serving.items.growing import Growing
from nightloom.serving.model.jit import kernel
from nightloom.serving.search.word_index import WordIndex

FloatArray = NDArray[np.float32]
POOL = 200
"""Items that are blended, at least; several times as many as are asked for."""
PARTIAL = 0.3
"""What all words of a query count beside a cosine of 1, where only some were found."""
LIKING = 0.5
"""What a person's liking counts beside nearness, both standardised over the pool."""
STEP, WIDEST = 10.0, 4.9
"""An item of a better kind of match scores so much more; within a kind scores are at most so far from its middle."""
KINDS = ("near", "words", "title")
"""Kinds of match, the weakest first: by meaning or by some of the words, by all of them, or the title itself."""


class Pool(NamedTuple):
    """The items that come into question.

    Attributes:
        items: int64 [m], dense, ascending.
        kind: int8 [m], place in `KINDS`.
        nearness: float32 [m].
    """

    items: NDArray[np.int64]
    kind: NDArray[np.int8]
    nearness: FloatArray


class Search:
    """Finds items of a catalogue by words and by meaning.

    Args:
        words: of the catalogue.
        texts: `texts.safetensors` of an artefact; None: there is no meaning to compare.
    """

    def __init__(self, words: WordIndex, texts: Mapping[str, NDArray[Any]] | None) -> None:
        self.words = words
        self._directions = None if texts is None else Growing(texts["directions"].astype(np.int8, copy=False))
        self._scale = Growing(np.zeros(0, dtype=np.float32) if texts is None else texts["scale"])

    def has_text(self, dense: int) -> bool:
        """Whether an item can be found by meaning."""
        return dense < self._scale.n and bool(self._scale.array[dense] > 0)

    def put(self, dense: int, text: FloatArray | None) -> None:
        """Take an item's text vector; None without text.

        Args:
            dense: the next item, or one that is there.
        """
        if self._directions is None:
            return
        width = self._directions.array.shape[1]
        directions, scale = int8_rows(np.zeros((1, width), np.float32) if text is None else text[None])
        if dense == self._scale.n:
            self._directions.append(directions[0])
            self._scale.append(scale[0])
        else:
            self._directions.array[dense], self._scale.array[dense] = directions[0], scale[0]

    def pool(
        self,
        query: str,
        meaning: FloatArray | None,
        allowed: NDArray[np.bool_],
        k: int,
        named: int | None = None,
        also: NDArray[np.bool_] | None = None,
    ) -> Pool:
        """The items nearest to a query.

        Args:
            query: its words.
            meaning: float32 [text_dim], its vector by the text encoder; None: words alone count.
            allowed: bool [items].
            k: how many are asked for.
            named: dense item whose id the query is; None: of none.
            also: bool [items] that come into question whatever the query is, where they are allowed; None: no such.
        """
        found = self.words.match(query)
        nearness = np.float32(PARTIAL) * found.share
        related = found.share > 0
        if meaning is not None and self._directions is not None and len(meaning) == self._directions.array.shape[1]:
            cosines = np.empty(len(nearness), np.float32)
            near(self._directions.array, self._scale.array, meaning / max(float(np.linalg.norm(meaning)), 1e-12), cosines)
            nearness = nearness + cosines
            related |= self._scale.array > 0
        kind = found.whole.astype(np.int8) + found.title
        if named is not None:
            kind[named], related[named] = len(KINDS) - 1, True
        also = np.zeros_like(related) if also is None else also
        open_to = np.flatnonzero(allowed & (related | also))
        many = max(POOL, 4 * k)
        if len(open_to) > many:
            order = (STEP * (kind + len(KINDS) * also) + nearness)[open_to]
            open_to = np.sort(open_to[np.argpartition(-order, many - 1)[:many]])
        return Pool(open_to, kind[open_to], nearness[open_to])


def blended(pool: Pool, liking: FloatArray) -> FloatArray:
    """Scores of a pool, float32 [m]: the kind of match first, then nearness and liking.

    Args:
        pool: what was found.
        liking: float32 [m], the ranking's scores of its items.
    """
    both = _standard(pool.nearness) + np.float32(LIKING) * _standard(liking)
    scores: FloatArray = (STEP * pool.kind + WIDEST * np.tanh(both / WIDEST)).astype(np.float32)
    return scores


def _standard(values: FloatArray) -> FloatArray:
    if not len(values):
        return values
    found: FloatArray = (values - values.mean()) / max(float(values.std()), 1e-9)
    return found


@kernel
def near(directions: Any, scale: Any, vector: Any, cosines: Any) -> None:
    """Cosine of each row with a unit vector."""
    for row in range(len(scale)):
        total: Any = np.float32(0)
        for place in range(len(vector)):
            total += np.float32(directions[row, place]) * vector[place]
        cosines[row] = total * scale[row]
