"""Items that came by day and are hardly known yet, found by those whose texts are nearest to theirs.

What nobody has acted on stands far behind in lists, so nobody sees it and nobody acts on it. `Service` therefore keeps one place of a list
for a new item that is near to what the person did lately, or is about to be shown, until enough people have acted on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

NEAREST = 10
"""Texts nearest to a new one: whoever has to do with one of their items is near to the new one."""
FAMILIAR = 20
"""Events after which an item is no longer new: by then its own popularity says more."""


class FreshItems:
    """Which new items are near to which known ones."""

    def __init__(self) -> None:
        self._near: dict[int, dict[int, float]] = {}
        self._known: dict[int, list[int]] = {}
        self._events: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def put(self, item: int, neighbours: NDArray[np.int64], cosines: NDArray[np.float32]) -> None:
        """Take a new item, or take it once more.

        Args:
            item: dense id.
            neighbours: int64 [n], known items with texts like its own, the nearest first.
            cosines: float32 [n], squared, of these.
        """
        self.remove(item)
        if self._events.setdefault(item, 0) >= FAMILIAR or not len(neighbours):
            return
        self._known[item] = neighbours[:NEAREST].tolist()
        for other, cosine in zip(self._known[item], cosines.tolist(), strict=False):
            self._near.setdefault(other, {})[item] = cosine

    def remove(self, item: int) -> None:
        """Find an item no more."""
        for other in self._known.pop(item, ()):
            left = self._near[other]
            del left[item]
            if not left:
                del self._near[other]

    def acted_on(self, item: int) -> None:
        """Count an event on an item; one that is no longer new is found no more."""
        if item in self._events:
            self._events[item] += 1
            if self._events[item] >= FAMILIAR:
                self.remove(item)

    def nearest(self, items: Iterable[int]) -> Sequence[int]:
        """New items near to some of the others, the nearest first, and of equal ones the latest."""
        found: dict[int, float] = {}
        for item in items:
            for new, cosine in self._near.get(item, {}).items():
                found[new] = max(cosine, found.get(new, 0.0))
        return sorted(found, key=lambda new: (-found[new], -new))
