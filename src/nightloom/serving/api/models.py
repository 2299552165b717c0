"""What requests hold. Strict: a number is no text, `false` is no number, and fields that nobody knows are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nightloom.core.reason_votes import ReasonKind
from nightloom.serving.business_rules import Rule
from nightloom.serving.items.filters import Filter
from nightloom.serving.model.moments import LATEST, WHOLE, Time
from nightloom.serving.reasons.reason_words import Language

LONGEST_ID, MOST_ITEMS, MOST_EVENTS, MOST_HISTORY, BIGGEST_K = 512, 1_000, 1_000, 2_000, 200
"""Characters of an id; items to rank; events of a request; events of a history; items of an answer."""
MOST_COLUMNS, LONGEST_QUERY = 200, 500
"""Columns of an item, and values of one cell; characters of a query in words."""
MOST_RULES = 20
"""Business rules of a request."""

Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, pattern=r"^[^\x00-\x1f\x7f]+$")]
Second = Annotated[int, Field(ge=0, le=LATEST), WHOLE]


Words = Annotated[str, Field(min_length=1, max_length=LONGEST_QUERY, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class RecommendRequest(Body):
    """Whom to recommend for, and what.

    A `history` is answered from the items that it names, a `user_id` alone from stored events, and without both from nothing.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "196", "k": 10},
                {"history": ["1", "50"], "k": 5, "filter": {"in": {"genre": ["Comedy"]}}},
                {"user_id": "196", "query": "a light comedy of the nineties"},
            ]
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
    k: Annotated[int, Field(ge=1, le=BIGGEST_K), WHOLE] = 10
    filter: Filter | None = None
    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_ITEMS)] | None = None
    """Rank these alone."""
    query: Words | None = None
    """What is asked for in words: matches of title and attributes first, then what is near by meaning, each blended with what is liked."""
    page: Annotated[str, Field(max_length=16_384)] | None = None
    """`next` of the answer before."""
    exclude_seen: bool | None = None
    """Leave out items of the history; by default as the model was evaluated."""
    columns: Annotated[list[Id], Field(max_length=50)] = Field(default_factory=list)
    """Columns of the catalogue that come with each item."""
    rules: Annotated[list[Rule], Field(max_length=MOST_RULES)] = Field(default_factory=list)
    """Business rules of this request, besides those of the service."""
    explain: bool | Literal["both"] = False
    """Say why, for each item: what speaks for it. "both": what speaks against it too, with values and standard errors."""
    language: Language | None = None
    """Of the reasons; by default as the header Accept-Language wishes, else English."""
    debug: bool = False
    """Say how many items each step left, and what each business rule did."""


class NewEvent(Body):
    """Something that a user did with an item. The `event_id` is the sender's own: an event is stored once, however often it is sent."""

    event_id: Id
    user_id: Id
    item_id: Id
    event: Id
    timestamp: Time
    """Seconds since 1970, or ISO 8601 text."""
    value: float | None = None


Acknowledged = Literal["local", "central"]
"""What an answer waits for: the disk of this machine, or that of PostgreSQL, which machines share, too."""


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
    ack: Acknowledged = "local"
    """`central`: answer once PostgreSQL has them, which machines share."""


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
    kind: Literal["impression", "click", "purchase", "rating", "dismiss", "not_interested", "helpful", "not_helpful"]
    """`helpful` and `not_helpful` are said of the reason of an item."""
    reason: ReasonKind | None = None
    """`kind` of that reason in the answer."""
    timestamp: Time
    item_id: Id | None = None
    user_id: Id | None = None
    depth: Annotated[int, Field(ge=0, le=100_000), WHOLE] | None = None
    value: float | None = None
    ack: Acknowledged = "local"
    """`central`: answer once PostgreSQL has it."""


Long = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Text = Annotated[str, Field(max_length=20_000)]
Word = Annotated[str, Field(max_length=LONGEST_ID)]
Cell = Text | bool | Long | float | Annotated[list[Word | Long | float], Field(max_length=MOST_COLUMNS)] | None


class ItemBody(Body):
    """The item's columns, by name."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"title": "A new film (2026)", "genre": "Comedy", "year": 2026}],
            "propertyNames": {"minLength": 1, "maxLength": LONGEST_ID},
            "maxProperties": MOST_COLUMNS,
        },
    )
    __pydantic_extra__: dict[Annotated[str, Field(min_length=1, max_length=LONGEST_ID)], Cell]

    @model_validator(mode="after")
    def _few(self) -> ItemBody:
        if len(self.__pydantic_extra__) > MOST_COLUMNS:
            raise ValueError(f"has more than {MOST_COLUMNS} columns")
        return self

    @property
    def columns(self) -> dict[str, Any]:
        """Column -> value."""
        return dict(self.__pydantic_extra__)
