"""Who asks for a recommendation, what is known of them, and whether the request's fields go together."""

from __future__ import annotations

from collections.abc import Callable

from nightloom.core.queries import Query
from nightloom.serving.api.models import RecommendRequest
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.explain import MOST_EXPLAINED
from nightloom.serving.refusals import Conflict

UNKNOWN_USER, EMPTY_HISTORY, UNKNOWN_ITEMS = "unknown_user", "empty_history", "unknown_items"


def who_of(asked: RecommendRequest) -> Query | str:
    """Whose list is asked for: a stored user, or a history."""
    if asked.user_id is not None and asked.history is None:
        return asked.user_id
    return Query(asked.history or [], asked.times, asked.events, request_time=asked.now)


def fallback_of(engine: Engine, who: Query | str) -> str | None:
    """Why nothing is known of the one who asks; None where something is."""
    if isinstance(who, str):
        return None if len(engine.users.get(who).items) else UNKNOWN_USER
    if any(item in engine.item_index for item in who.history):
        return None
    return UNKNOWN_ITEMS if who.history else EMPTY_HISTORY


def check(asked: RecommendRequest, knows: Callable[[str], bool]) -> None:
    """Refuse fields that contradict each other, or the model.

    Raises:
        Conflict: names the field.
    """
    history = asked.history
    for name in ("times", "events"):
        given = getattr(asked, name)
        if given is None:
            continue
        if history is None:
            raise Conflict(f"{name}: they belong to a history")
        if len(given) != len(history):
            raise Conflict(f"{name}: {len(given)} for {len(history)} events of the history")
    if asked.times is not None and asked.now is not None and asked.now < max(asked.times, default=0):
        raise Conflict("now: it is before the latest event of the history")
    if asked.explain and asked.k > MOST_EXPLAINED:
        raise Conflict(f"explain: at most {MOST_EXPLAINED} items are explained at a time. Lower k and go on with page.")
    if unknown := [name for name in asked.events or () if not knows(name)]:
        raise Conflict(f"events: the model knows no event {unknown[0]!r}")
