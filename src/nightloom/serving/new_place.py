"""The place of a list that is kept for what came by day: what nobody has acted on is seen by those who are likeliest to.

It is behind the first ten, which stay as the model has them. A list under business rules, of given items or in words has none, nor has
that of somebody of whom nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable

from nightloom.core.queries import Query
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.ranker import Answer

NEW_AT = 11
"""The place, over all pages."""
LOOKED_AT = 10
"""Items from that place on that a new one may be near to, besides those before it and the history's."""


def put_new(
    engine: Engine, who: Query | str, found: list[int], scores: list[float], k: int, before: int, score: Callable[[int], Answer]
) -> int | None:
    """Put the nearest new item at its place, unless it stands there or before by itself.

    Args:
        engine: what has ranked.
        who: whose list it is.
        found: dense items, best first; changed.
        scores: theirs; changed.
        k: how many were asked for.
        before: how many items earlier pages showed.
        score: gives a new item with its score, or nothing where it may not be shown.

    Returns:
        The item; None where the list stays as it was.
    """
    at = NEW_AT - 1 - before
    if not 0 <= at < len(found):
        return None
    for item in engine.near_new(who, found[: at + LOOKED_AT]):
        if item in found[: at + 1]:
            return None
        dense, own = score(item)
        if not len(dense):  # seen, shown before, blocked, or taken by a filter
            continue
        if item in found:
            del scores[found.index(item)]
            found.remove(item)
        found.insert(at, item)
        scores.insert(at, float(own[0]))
        del found[k:], scores[k:]
        return item
    return None
