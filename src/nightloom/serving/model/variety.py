"""Variety for whoever has no history, at a request; see `nightloom.core.exploration`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nightloom.core.exploration import HEAD, lift
from nightloom.core.queries import Query
from nightloom.serving.model.engine import Engine

FloatArray = NDArray[np.float32]


def variety(engine: Engine, person: str, moment: int, now: int | None, allowed: NDArray[np.bool_] | None) -> FloatArray | None:
    """What is added to the scores of a newcomer's list, float32 [items]; None where the model draws nothing.

    Args:
        engine: the model.
        person: id of the newcomer.
        moment: seconds since 1970, of the request.
        now: as in `Engine.recommend_user`.
        allowed: bool [items], what may be recommended on any page; None: all.
    """
    if not engine.exploration:
        return None
    head, _ = engine.recommend(Query(request_time=now), HEAD, exclude_seen=False, allowed=allowed)
    return lift(head, person, moment, len(engine.catalogue), engine.exploration)
