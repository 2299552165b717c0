"""From Shapley values to sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

NAMED = 3
"""Most events that a sentence names."""
WORTH_NAMING = 0.08
"""Smallest share that a sentence names."""
FOR_ANYBODY = 0.75
"""From this share of the score on, an empty history gives nearly the same, and the sentence says so."""


@dataclass(frozen=True)
class Reason:
    """One player's part in a recommendation.

    Attributes:
        kind: event (of the history) or field (of the item).
        player: item id of an event, or name of a field; "older" stands for all events before the latest ones.
        label: what a person reads.
        value: Shapley value, in units of the score.
        error: its standard error; zero when exact.
        share: value over the sum of the absolute values of its kind.
        position: 1 for the latest event; None for a field and for the older events.
        age_days: days between the event and the request; None without times.
    """

    kind: Literal["event", "field"]
    player: str
    label: str
    value: float
    error: float
    share: float
    position: int | None = None
    age_days: float | None = None


def shares(values: np.ndarray) -> np.ndarray:
    """Values over the sum of their absolute values; zeros when all are zero."""
    total = np.abs(values).sum()
    return values / total if total > 0 else np.zeros_like(values)


def sentence(title: str, reasons: Sequence[Reason], score: float, without_history: float) -> str:
    """Say why in words: the events and fields that count most, and what speaks against it.

    For example: "Heat is recommended because of Casino and Fargo in the history. What counts of the item itself: genres (Crime,
    Drama)." Where the item would score about as well for anybody, that is what is said first.

    Args:
        title: of the item.
        reasons: of both kinds.
        score: the item's score above the catalogue's mean.
        without_history: the same for an empty history.
    """
    ranked = sorted(reasons, key=lambda reason: -abs(reason.value))
    events = [reason.label for reason in ranked if reason.kind == "event" and reason.share >= WORTH_NAMING][:NAMED]
    fields = [reason.label for reason in ranked if reason.kind == "field" and reason.share >= WORTH_NAMING]
    against = [reason.label for reason in ranked if reason.share <= -2 * WORTH_NAMING]
    if score > 0 and without_history >= FOR_ANYBODY * score:
        text = f"{title} stands high for anybody who asks now, whatever the history"
        text += f"; most of what the history adds comes from {_join(events)}." if events else "."
    elif events:
        text = f"{title} is recommended because of {_join(events)} in the history."
    else:
        text = f"{title} is recommended for the history as a whole; no single event stands out."
    if fields:
        text += f" What counts of the item itself: {_join(fields)}."
    if against:
        text += f" Against it speaks {against[0]}."
    return text


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
