"""What requests hold. Strict: a number is no text, `false` is no number, and fields that nobody knows are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from nightloom.serving.filters import Filter

LONGEST_ID, MOST_ITEMS, MOST_EVENTS, MOST_HISTORY, BIGGEST_K = 512, 1_000, 1_000, 2_000, 200
"""Characters of an id; items to rank; events of a request; events of a history; items of an answer."""
LATEST = 253_402_300_799
"""The last second of the year 9999."""

Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, pattern=r"^[^\x00]+$")]
Second = Annotated[int, Field(ge=0, le=LATEST)]


def _milliseconds(said: Any) -> Any:
    """Milliseconds since 1970 of a time as people write it: seconds since 1970, or ISO 8601 text (UTC where it names no zone)."""
    if isinstance(said, str):
        try:
            moment = datetime.fromisoformat(said)
        except ValueError as error:
            raise ValueError("is neither seconds since 1970 nor a time such as 2026-11-30T12:00:00Z") from error
        said = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said <= LATEST:
        raise ValueError("is neither seconds since 1970, up to the year 9999, nor a time such as 2026-11-30T12:00:00Z")
    return round(said * 1000)


Time = Annotated[
    int,
    BeforeValidator(_milliseconds),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "maximum": LATEST}, {"type": "string", "format": "date-time"}]}, mode="validation"
    ),
]


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class RecommendRequest(Body):
    """Whom to recommend for, and what.

    A `user_id` is answered from stored events, a `history` from the items that it names.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "196", "k": 10}, {"history": ["1", "50"], "k": 5, "filter": {"in": {"genre": ["Comedy"]}}}]
        }
    )
    user_id: Id | None = None
    history: Annotated[list[Id], Field(max_length=MOST_HISTORY)] | None = None
    times: Annotated[list[Second], Field(max_length=MOST_HISTORY)] | None = None
    """Of each event of the history, seconds since 1970."""
    events: Annotated[list[Id], Field(max_length=MOST_HISTORY)] | None = None
    """Name of each event of the history."""
    now: Second | None = None
    """Time of the request, seconds since 1970; by default now."""
    k: Annotated[int, Field(ge=1, le=BIGGEST_K)] = 10
    filter: Filter | None = None
    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_ITEMS)] | None = None
    """Rank these alone."""
    page: Annotated[str, Field(max_length=16_384)] | None = None
    """`next` of the answer before."""
    exclude_seen: bool | None = None
    """Leave out items of the history; by default as the model was evaluated."""
    columns: Annotated[list[Id], Field(max_length=50)] = []
    """Columns of the catalogue that come with each item."""
    debug: bool = False
    """Say how many items each step left."""

    @model_validator(mode="after")
    def _one_of_two(self) -> RecommendRequest:
        if (self.user_id is None) == (self.history is None):
            raise ValueError("name either user_id or history")
        for name in ("times", "events"):
            given = getattr(self, name)
            if given is not None and self.history is None:
                raise ValueError(f"{name} belong to a history")
            if given is not None and self.history is not None and len(given) != len(self.history):
                raise ValueError(f"{len(given)} {name} for {len(self.history)} events of the history")
        if self.times is not None and self.now is not None and self.now < max(self.times, default=0):
            raise ValueError("now is before the latest event of the history")
        return self


class NewEvent(Body):
    """Something that a user did with an item. The `event_id` is the sender's own: an event is stored once, however often it is sent."""

    event_id: Id
    user_id: Id
    item_id: Id
    event: Id
    timestamp: Time
    """Seconds since 1970, or ISO 8601 text."""
    value: float | None = None


class EventsRequest(Body):
    """Events of one or many users."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"events": [{"event_id": "e1", "user_id": "196", "item_id": "50", "event": "rating", "timestamp": 893286638, "value": 5}]}
            ]
        }
    )
    events: Annotated[list[NewEvent], Field(min_length=1, max_length=MOST_EVENTS)]


class FeedbackRequest(Body):
    """What became of a recommendation.

    `token` is that of the answer. `depth` is how many of its items were seen.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"feedback_id": "f1", "token": "<token of /recommend>", "kind": "click", "item_id": "50", "timestamp": 893286700}]
        }
    )
    feedback_id: Id
    token: Annotated[str, Field(min_length=1, max_length=16_384)]
    kind: Literal["impression", "click", "purchase", "rating", "dismiss", "not_interested"]
    timestamp: Time
    item_id: Id | None = None
    user_id: Id | None = None
    depth: Annotated[int, Field(ge=0, le=100_000)] | None = None
    value: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> FeedbackRequest:
        if self.item_id is None and self.kind != "impression":
            raise ValueError(f"feedback of kind {self.kind} names its item_id")
        if self.value is None and self.kind == "rating":
            raise ValueError("a rating has a value")
        return self


Cell = Annotated[str, Field(max_length=20_000)] | bool | int | float | Annotated[list[str | int | float], Field(max_length=1_000)] | None


class ItemBody(Body):
    """The item's columns, by name."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"title": "A new film (2026)", "genre": "Comedy", "year": 2026}]}
    )
    __pydantic_extra__: dict[Annotated[str, Field(min_length=1, max_length=LONGEST_ID)], Cell]

    @property
    def columns(self) -> dict[str, Any]:
        """Column -> value."""
        return dict(self.__pydantic_extra__)


class SimilarRequest(Body):
    """Items that others are near to."""

    items: Annotated[list[Id], Field(min_length=1, max_length=50)]
