"""Which items have a word in their title or among their attributes; items come and change one by one."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightloom.core.item_text import missing, values_of
from nightloom.serving.items.growing import Growing
from nightloom.serving.search.words import indexed, words_of

IN_TITLE, IN_ATTRIBUTE, BEGUN = 1.0, 0.8, 0.9
"""What a word of the query counts that is found in the title or in an attribute; of one that is only begun, so much of that."""
MOST_BEGUN = 64
"""Words that one which is only begun may stand for."""
Postings = dict[str, "array[int]"]


class Matches(NamedTuple):
    """What was found of a query's words, by dense item.

    Attributes:
        share: float32 [items], between 0 and 1; rare words count more.
        whole: bool [items], where all words were found.
        title: bool [items], where the query is the title.
    """

    share: NDArray[np.float32]
    whole: NDArray[np.bool_]
    title: NDArray[np.bool_]


class WordIndex:
    """Words of titles and attributes (categories, tags, whole numbers).

    Args:
        kinds: column -> text, category, tags, number, image or ignore.
        separator: between the tags of one cell.
        title: the column of titles; None: there are none.
    """

    def __init__(self, kinds: Mapping[str, str], separator: str, title: str | None) -> None:
        self._kinds, self._separator, self._title = kinds, separator, title
        self._titles: Postings = {}
        self._attributes: Postings = {}
        self._lengths = Growing(np.zeros(0, dtype=np.int32))
        self._sorted: list[str] = []
        self._fresh: set[str] = set()

    def __len__(self) -> int:
        return self._lengths.n

    def put(self, dense: int, columns: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> None:
        """Take an item.

        Args:
            dense: the next item, or one that is there.
            columns: what is known of it.
            before: what was known of one that is there.
        """
        if dense == len(self):
            self._lengths.append(0)
        elif before is not None:
            for postings, words in zip((self._titles, self._attributes), self._words(before), strict=True):
                for word in words:
                    postings[word].remove(dense)
        title, attributes = self._words(columns)
        for postings, words in ((self._titles, title), (self._attributes, attributes)):
            for word in words:
                if word not in postings:
                    postings[word] = array("i")
                    self._fresh.add(word)
                postings[word].append(dense)
        cell = None if self._title is None else columns.get(self._title)
        self._lengths.array[dense] = 0 if missing(cell) else len(words_of(str(cell)))

    def match(self, query: str) -> Matches:
        """Find a query's words. The last one may be only begun, unless a blank follows it."""
        n, words = len(self), words_of(query)
        share, found = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.int32)
        titled, total = np.zeros(n, dtype=np.int32), 0.0
        for word in words:
            hit = np.zeros(n, dtype=np.float32)
            if word == words[-1] and query[-1:].isalnum():
                for longer in self._begun(word):
                    self._mark(hit, longer, BEGUN)
            titled[self._mark(hit, word, 1.0)] += 1
            weight = float(np.log1p(n / (1 + np.count_nonzero(hit))))
            total += weight
            share += np.float32(weight) * hit
            found += hit > 0
        whole = (found == len(words)) & (len(words) > 0)
        return Matches(share / np.float32(total or 1), whole, whole & (titled == len(words)) & (self._lengths.array == len(words)))

    def _mark(self, hit: NDArray[np.float32], word: str, part: float) -> NDArray[np.int32]:
        """Say what items with a word get, and give those that have it in the title."""
        titles, attributes = (np.array(postings.get(word, ()), dtype=np.int32) for postings in (self._titles, self._attributes))
        hit[attributes] = np.maximum(hit[attributes], np.float32(IN_ATTRIBUTE * part))
        hit[titles] = np.maximum(hit[titles], np.float32(IN_TITLE * part))
        return titles

    def _begun(self, word: str) -> Iterable[str]:
        """Longer words that begin so."""
        if len(self._fresh) > 1000:
            self._sorted, self._fresh = sorted({*self._sorted, *self._fresh}), set()
        first = bisect_left(self._sorted, word)
        last = bisect_left(self._sorted, f"{word}\U0010ffff", lo=first)
        longer = [*self._sorted[first : min(last, first + MOST_BEGUN)], *(one for one in self._fresh if one.startswith(word))]
        return (one for one in longer[:MOST_BEGUN] if one != word)

    def _words(self, columns: Mapping[str, Any]) -> Sequence[set[str]]:
        """Words of the title, and of the attributes."""
        cell = None if self._title is None else columns.get(self._title)
        title = set[str]() if missing(cell) else indexed(str(cell))
        return title, {word for text in self._texts(columns) for word in indexed(text)}

    def _texts(self, columns: Mapping[str, Any]) -> Iterator[str]:
        for column, kind in self._kinds.items():
            cell = columns.get(column)
            if kind in ("category", "tags"):
                yield from values_of(cell, kind, self._separator)
            elif kind == "number" and not isinstance(cell, bool) and isinstance(cell, int | float) and float(cell).is_integer():
                yield str(int(cell))
