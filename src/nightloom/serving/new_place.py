"""The place of a list that is kept for what came by day: what nobody has acted on is seen by those who are likeliest to.

It is behind the first ten, which stay as the model has them. A list under business rules, of given items or in words has none, nor has
that of somebody of whom nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nightloom.core.queries import Query
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.ranker import Answer, Others

NEW_AT = 11
"""The place, over all pages."""
LOOKED_AT = 10
"""Items from that place on that a new one may be near to, besides those before it and the history's."""


def with_new(
    engine: Engine,
    who: Query | str,
    rank: Callable[[int, Others | None], Answer],
    k: int,
    before: Sequence[int],
    marks: NDArray[np.uint32],
) -> tuple[list[int], list[float], int | None]:
    """A list with the nearest new item at its place, unless that stands there or before by itself.

    The item does not depend on how long pages are: as many items are looked at, and those of earlier pages too.

    Args:
        engine: what ranks.
        who: whose list it is.
        rank: gives the best items, so many, and behind them those of others that may be recommended.
        k: how many are asked for.
        before: marks of the items that earlier pages showed.
        marks: of each item of the catalogue.

    Returns:
        Dense items, best first; their scores, the new one's too as it has it in this list; and the new one, if it was put there.
    """
    at = NEW_AT - 1 - len(before)
    if not 0 <= at < k or not engine.has_new:
        dense, values = rank(k, None)
        return dense.tolist(), values.tolist(), None
    many, near = max(k, at + LOOKED_AT), list[int]()
    shown = np.flatnonzero(np.isin(marks, np.array(before, dtype=np.uint32))).tolist() if before else []

    def near_to(best: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(best) > at:
            near.extend(engine.near_new(who, [*shown, *best[: at + LOOKED_AT].tolist()]))
        return np.array(near, dtype=np.int64)

    dense, values = rank(many, near_to)
    found, scores = dense[:many].tolist(), values[:many].tolist()
    own = dict(zip(dense.tolist(), values.tolist(), strict=True))  # of all that may be shown, if they are near
    first = {*shown, *found[: at + 1]}
    chosen = next((item for item in near if item in own or item in first), None)
    if chosen is None or chosen in first:
        return found[:k], scores[:k], None
    if chosen in found:
        del scores[found.index(chosen)]
        found.remove(chosen)
    found.insert(at, chosen)
    scores.insert(at, own[chosen])
    return found[:k], scores[:k], chosen
