"""An answer to a query in words: which items come into question, in what order, and how each was found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nightloom.serving.model.ranker import Answer
from nightloom.serving.rule_effects import FAR
from nightloom.serving.search.search import KINDS, Pool, Search, blended

FloatArray = NDArray[np.float32]


class InWords:
    """Ranks by words, meaning and liking; one for each request.

    Args:
        search: of the catalogue.
        words: the query.
        meaning: float32 [text_dim], its vector; None: words alone count.
        named: dense item whose id the query is; None: of none.
        open_to: bool [items] that may be recommended.
        liking: ranks some dense items by what the person likes.

    Attributes:
        pooled: items that came into question.
    """

    def __init__(
        self,
        search: Search,
        words: str,
        meaning: FloatArray | None,
        named: int | None,
        open_to: NDArray[np.bool_],
        liking: Callable[[NDArray[np.int64]], Answer],
    ) -> None:
        self._search, self._words, self._meaning, self._named = search, words, meaning, named
        self._open_to, self._liking = open_to, liking
        self._found: dict[int, tuple[str, float]] = {}
        self.pooled = 0

    def rank(self, many: int, lift: FloatArray | None = None) -> Answer:
        """The best items, so many; arguments as of `nightloom.serving.rule_effects.Rank`."""
        pinned = None if lift is None else lift > FAR
        pool = self._search.pool(self._words, self._meaning, self._open_to, many, self._named, pinned)
        self.pooled = len(pool.items)
        items, liking = self._liking(pool.items)
        places = np.searchsorted(pool.items, items)  # what the history holds may have been left out
        left = Pool(pool.items[places], pool.kind[places], pool.nearness[places])
        scores = blended(left, liking)
        if lift is not None:
            scores = scores + lift[items]
        best = np.argsort(-scores, kind="stable")[:many]
        kinds = (KINDS[kind] for kind in left.kind[best].tolist())
        self._found = dict(zip(items[best].tolist(), zip(kinds, liking[best].tolist(), strict=True), strict=True))
        return items[best], scores[best]

    def match(self, dense: int) -> str:
        """How an item of the answer was found, of `KINDS`."""
        return self._found[dense][0]

    def liking(self, dense: int) -> float:
        """The ranking's own score of an item of the answer."""
        return self._found[dense][1]
