"""Whether the reasons that the service gives hold: events in the order in which it names them, of tonight's model and of the champion.

Each model explains its own first recommendation to the same users, from the same latest events. What is measured is in
`nightloom.explain.fidelity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.ragged import offsets_of
from nightloom.core.sequences import Histories
from nightloom.core.threads import each
from nightloom.explain.fidelity import measures
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.attribution import PLAYERS, Estimator, contributions
from nightloom.serving.reasons.coalitions import subsets
from nightloom.serving.reasons.decisive import decisive

CHALLENGER, CHAMPION = "challenger", "champion"
MEASURES = ("pos_at_5", "cdcg", "del", "ins")
"""Means over one to five events; each has an area over steps of 10 % of the history, too."""
FEWEST_EVENTS = 2
"""Of a history that a model knows; with fewer there is nothing to choose."""


def service_fidelity(engine: Engine, estimator: Estimator, histories: Histories, user_ids: Sequence[str], family: str) -> pd.DataFrame:
    """Measure the order in which one model's service names events.

    Args:
        engine: the model.
        estimator: by which its service estimates values.
        histories: one a user, of the engine's own dense items and event codes.
        user_ids: whose they are.
        family: how the rows are called.

    Returns:
        `family`, `user_id` and the measures, one row for each user with enough events for whom something can be recommended.
    """

    def row_of(at: int) -> dict[str, Any] | None:
        whole = histories.take(slice(at, at + 1))
        many = len(whole.items)
        if many < FEWEST_EVENTS:
            return None
        latest = subsets(whole, np.arange(many)[None] >= many - PLAYERS)
        game = engine.coalitions_of(latest)
        scores = np.where(engine.catalogue.open_to(None), game.scores(np.ones((1, game.events), np.bool_))[0], -np.inf)
        scores[whole.items] = -np.inf
        item = int(np.argmax(scores))
        if not np.isfinite(scores[item]):
            return None
        asked = game, np.arange(game.events), np.array([item]), whole.items
        found = contributions(*asked)
        (decided,) = decisive(*asked, found, found.values(estimator))
        measured = measures(game, item, {family: decided.order}, whole.items)[family]
        return {"family": family, "user_id": user_ids[at]} | measured

    rows = [row for row in each(row_of, range(len(user_ids))) if row is not None]
    return pd.DataFrame(rows, columns=["family", "user_id", *(f"{name}{end}" for name in MEASURES for end in ("", "_area"))])


def as_known_to(engine: Engine, histories: Histories, item_ids: Sequence[str], event_types: Sequence[str]) -> Histories:
    """Tonight's histories as another model knows them: by its own dense items and event codes, without items that it lacks.

    Args:
        engine: the other model.
        histories: of tonight's dense items.
        item_ids: tonight's, by dense id.
        event_types: tonight's event names, by code.
    """
    places: NDArray[np.int64] = np.array([engine.item_index.get(item, -1) for item in item_ids], dtype=np.int64)
    there = places[histories.items] >= 0
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    lengths = np.bincount(owner[there], minlength=len(histories))
    kept = histories.of_events(np.flatnonzero(there), offsets_of(lengths))
    kept = replace(kept, items=places[kept.items].astype(np.int32), request_time=histories.request_time)
    return kept.recoded(engine.names.codes(event_types))


def fidelity_means(rows: pd.DataFrame) -> Mapping[str, Mapping[str, float]]:
    """Family -> `users` and the mean of each measure."""
    found = {}
    for family, one in rows.groupby("family"):
        found[str(family)] = {"users": len(one)} | {name: float(one[name].mean()) for name in one.columns.drop(["family", "user_id"])}
    return found
