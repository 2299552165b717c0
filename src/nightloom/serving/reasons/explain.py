"""Reasons of an answer: from the request and the recommended items to what is told of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.queries import Query
from nightloom.serving.live import LiveModel
from nightloom.serving.reasons.reason_words import Language, pinned_sentence, verb_of
from nightloom.serving.reasons.reasons import reasons, told

MOST_EXPLAINED = 50
"""Items of an answer that are explained."""


def explaining(
    model: LiveModel,
    asked: Query | str,
    dense: NDArray[np.int64],
    *,
    now: int | None,
    exclude_seen: bool,
    allowed: NDArray[np.bool_] | None,
    candidates: NDArray[np.int64] | None,
    before: int,
    language: Language,
    both_signs: bool,
    by_score: int,
) -> Callable[[], Sequence[dict[str, Any]]]:
    """Finds the reasons of recommended items, one for each, as the model is now: what it gives back takes long, and any thread may call it.

    Args:
        model: what recommended them.
        asked: the history, or the key of a stored user.
        dense: the items.
        now: time of a stored user's request.
        exclude_seen: whether items of the history were left out.
        allowed: what could be recommended.
        candidates: the items that alone were ranked; None: all.
        before: items on earlier pages.
        language: of the sentences.
        both_signs: see `nightloom.serving.reasons.reasons.told`.
        by_score: the first so many items stand where their scores have them; of the others, which a rule, a draw or a new item has moved,
            nothing is said of the first places of the list.
    """
    if not len(dense):
        return list
    engine = model.engine
    if candidates is not None:
        chosen = np.zeros(len(engine.catalogue), dtype=np.bool_)
        chosen[candidates] = True
        allowed = chosen if allowed is None else chosen & engine.catalogue.open_to(allowed)
    game = engine.coalitions(asked, now=now, allowed=allowed)
    history = game.history
    hidden = history.items[history.seen] if exclude_seen else np.zeros(0, dtype=np.int32)
    events = history.items.tolist()
    ids, titles = [model.items.ids[item] for item in events], [model.items.title(item) for item in events]
    names = engine.names.known
    verbs = [verb_of(names[code], positive=bool(good)) for code, good in zip(history.event_types, history.positive, strict=True)]
    hidden_events = {place for place, item in enumerate(events) if item in model.items.blocked}

    def explained() -> Sequence[dict[str, Any]]:
        found = reasons(game, dense, engine.estimator, hidden, before)
        if hidden_events:
            found = [one.saying_nothing_of(hidden_events) for one in found]
        found = [one if at < by_score else replace(one, top=0, without=()) for at, one in enumerate(found)]
        return [told(one, ids, titles, verbs, language, both_signs=both_signs) for one in found]

    return explained


def chosen_by_hand(language: Language, rank: int) -> dict[str, Any]:
    """The reason of an item that a business rule has pinned; `rank` is the one that it would have."""
    return {"text": pinned_sentence(language), "kind": "editors", "events": [], "without": None, "rank": rank}
