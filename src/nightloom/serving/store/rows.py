"""What the store holds: events, feedback, items, and users who asked to be forgotten. Times are milliseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

FEEDBACK_EVENTS: Mapping[str, str] = {"click": "click", "purchase": "purchase", "rating": "rating"}
"""Kinds of feedback that are events, too, and their names as such. Impressions and dismissals say what was shown, not what was done."""


class Event(NamedTuple):
    """Something that a user did with an item. A tuple, since a history has hundreds.

    Attributes:
        event_id: the sender's own; an event is stored once, however often it is sent. Empty for events of the snapshot.
        event: name, such as click.
        timestamp: when it happened, as its sender says.
        value: such as a rating.
        context: further columns, JSON values.
    """

    event_id: str
    user_id: str
    item_id: str
    event: str
    timestamp: int
    value: float | None = None
    context: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class DeletedEvent:
    """An event that was told before, and was deleted since."""

    event: Event


@dataclass(frozen=True, slots=True)
class Feedback:
    """What became of a recommendation.

    Attributes:
        feedback_id: the sender's own; stored once, however often it is sent.
        kind: click, purchase, rating, dismiss, not_interested, impression, or a vote on a reason (`nightloom.core.reason_votes.stored`).
        token: of the recommendation.
        position: of the item in the list, from 1.
        depth: how many items of the list were seen.
        event: name of the event that this is as well, or None where it is none; the event's id is `feedback:<feedback_id>`.
    """

    feedback_id: str
    kind: str
    token: str
    timestamp: int
    user_id: str | None = None
    item_id: str | None = None
    position: int | None = None
    depth: int | None = None
    value: float | None = None
    event: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What was said by day of an item.

    Attributes:
        columns: JSON values by column name.
        whole: the columns are all that is known of it. If not, they are laid over those of the catalogue, and None takes one away.
        deleted: no longer offered; `columns` is empty.
        version: counts the changes, from 1.
        changed: when it changed last.
    """

    item_id: str
    columns: Mapping[str, Any]
    whole: bool
    deleted: bool
    version: int
    changed: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A user whose rows were removed; what this user does later counts again.

    Attributes:
        received: everything that was received until then is gone.
    """

    user_id: str
    received: int


Change = Event | DeletedEvent | Feedback | Item | Forgotten


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Rows that are durable.

    Attributes:
        new: stored now.
        duplicate: stored before, by their ids.
    """

    new: int
    duplicate: int
