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
"""Where an empty history reaches this share of the probability, the sentence says that the item is likely for every user; where its
probability is higher by as much, that too."""
HIDDEN = "an item that is not shown"
"""Player and label of an event whose item is blocked. Its value stays, so that values add up."""
SURE = 2.0
"""Standard errors above which a value has to be for the event to be named."""


@dataclass(frozen=True)
class Reason:
    """The part of one player in a recommendation.

    Attributes:
        kind: event (of the history) or field (of the item).
        player: item id of an event, or name of a field; "older" stands for all events before the latest ones.
        label: the name that readers see.
        value: Shapley value, in units of the logarithm of the item's probability.
        error: its standard error; zero when exact.
        share: value over the sum of the absolute values of its kind.
        position: 1 for the latest event; None for a field and for the older events.
        age_days: days between the event and the request; None without times.
        drop: fall of the logarithm of the item's probability without this event alone; None for a field.
    """

    kind: Literal["event", "field"]
    player: str
    label: str
    value: float
    error: float
    share: float
    position: int | None = None
    age_days: float | None = None
    drop: float | None = None

    @property
    def sure(self) -> bool:
        """Whether it may be named as what speaks for the item: above two standard errors, the item falls without it, and it is shown."""
        return self.player != HIDDEN and self.value > SURE * self.error and (self.drop is None or self.drop > 0)


def shares(values: np.ndarray) -> np.ndarray:
    """Values over the sum of their absolute values; zeros when all are zero."""
    total = np.abs(values).sum()
    return values / total if total > 0 else np.zeros_like(values)


def sentence(title: str, reasons: Sequence[Reason], log_probability: float, without_history: float) -> str:
    """The reasons in words: the events and fields that count most, and what counts against the item.

    For example: "Heat is recommended because of Casino and Fargo in the history. Of the item itself, these count most:
    genres (Crime, Drama)." Where the item scores about as well for every user, the text begins with that.

    Args:
        title: of the item.
        reasons: of both kinds.
        log_probability: logarithm of the item's probability.
        without_history: the same for an empty history.
    """
    ranked = sorted(reasons, key=lambda reason: -abs(reason.value))
    events = [reason.label for reason in ranked if reason.kind == "event" and reason.share >= WORTH_NAMING and reason.sure][:NAMED]
    fields = [reason.label for reason in ranked if reason.kind == "field" and reason.share >= WORTH_NAMING]
    against = [reason.label for reason in ranked if reason.share <= -2 * WORTH_NAMING and reason.player != HIDDEN]
    if without_history >= log_probability + np.log(FOR_ANYBODY):
        text = f"{title} is as likely for every user at this time, whatever the history"
        if without_history > log_probability - np.log(FOR_ANYBODY):
            text = f"{title} is likely for every user at this time, and likelier without this history"
        text += f"; of the history, {_join(events)} add{'s' if len(events) == 1 else ''} most." if events else "."
    elif events:
        text = f"{title} is recommended because of {_join(events)} in the history."
    else:
        text = f"{title} is recommended for the history as a whole; no single event stands out."
    if fields:
        text += f" Of the item itself, {_join(fields)} count{'s' if len(fields) == 1 else ''} most."
    if against:
        text += f" What counts against it: {against[0]}."
    return text


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
