"""Items that came by day and are hardly known yet, found by those whose texts are nearest to theirs.

What nobody has acted on stands far behind in lists, so nobody sees it and nobody acts on it. `Service` therefore keeps one place of a list
for a new item that is near to what the person did lately, or is about to be shown, until enough people have acted on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

NEAREST = 10
"""Texts nearest to a new one: whoever has to do with one of their items is near to the new one."""
FAMILIAR = 20
"""Events after which an item is no longer new: by then its own popularity says more."""
LATEST_NEW = 100
"""New items near to one item that are looked at, the latest: a list waits no longer on a day on which very many came."""


class FreshItems:
    """Which new items are near to which known ones."""

    def __init__(self) -> None:
        self._near: dict[int, dict[int, float]] = {}
        self._known: dict[int, dict[int, float]] = {}
        self._found = set[int]()
        self._events: dict[int, int] = {}

    def __bool__(self) -> bool:
        """Whether a new item is near to something."""
        return bool(self._found)

    def put(self, item: int, neighbours: NDArray[np.int64], cosines: NDArray[np.float32]) -> None:
        """Take a new item, or take it once more.

        Args:
            item: dense id.
            neighbours: int64 [n], known items with texts like its own, the nearest first.
            cosines: float32 [n], squared, of these.
        """
        self.remove(item)
        self._events.setdefault(item, 0)
        if len(neighbours):
            self._known[item] = dict(zip(neighbours[:NEAREST].tolist(), cosines.tolist(), strict=False))
            self.count(item, 0)

    def remove(self, item: int) -> None:
        """Find an item no more."""
        self._hide(item)
        self._known.pop(item, None)

    def count(self, item: int, events: int) -> None:
        """Count events on an item, or take them back; it is found as long as it has few."""
        if item not in self._events:
            return
        self._events[item] += events
        if self._events[item] >= FAMILIAR:
            self._hide(item)
        elif item in self._known and item not in self._found:
            self._found.add(item)
            for other, cosine in self._known[item].items():
                self._near.setdefault(other, {})[item] = cosine

    def _hide(self, item: int) -> None:
        if item not in self._found:
            return
        self._found.discard(item)
        for other in self._known[item]:
            left = self._near[other]
            del left[item]
            if not left:
                del self._near[other]

    def nearest(self, items: Iterable[int]) -> Sequence[int]:
        """New items near to some of the others, the nearest first, and of equal ones the latest."""
        found: dict[int, float] = {}
        for item in items:
            for new, cosine in islice(reversed(self._near.get(item, {}).items()), LATEST_NEW):
                found[new] = max(cosine, found.get(new, 0.0))
        return sorted(found, key=lambda new: (-found[new], -new))
