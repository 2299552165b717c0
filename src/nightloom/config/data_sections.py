"""The sections that say where the tables are, what they must hold and how they are prepared: every key, its default and its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from nightloom.config.section import Section
from nightloom.core.secrets import has_secret

TableName = Literal["events", "items", "users", "links"]
Share = Annotated[float, Field(ge=0, le=1)]
RANDOM = "random"
"""As `data.columns.events.order` and as a protocol: events have no times, and their order and split are drawn at random."""
FeatureKind = Literal["text", "category", "tags", "number", "image", "ignore"]
NamedSet = Literal["movies-small", "movies", "office", "industrial", "shop", "news", "social", "follow", "avazu", "criteo"]


class EventFilterConfig(Section):
    """A part of the events, where not all are wanted: one year of two, or some of the users. The catalogue stays whole."""

    since: date | None = None
    """First day that counts, for example 2010-12-01 (UTC). Empty: from the first event."""
    before: date | None = None
    """Day that ends the part, itself not in it. Empty: to the last event."""
    users_share: float = Field(1.0, gt=0, le=1)
    """Share of the users to keep, drawn with a fixed seed: a larger share contains every smaller one."""

    @model_validator(mode="after")
    def _has_days(self) -> EventFilterConfig:
        if self.since and self.before and self.since >= self.before:
            raise ValueError(f"since ({self.since}) must be a day earlier than before ({self.before})")
        return self


class DataConfig(Section):
    """Where the tables come from and what their columns mean."""

    renamed: ClassVar[Mapping[str, str]] = {"only": "event_filter"}

    set: NamedSet | None = None
    """A named data set, checked by SHA-256: MovieLens is fetched, others lie in NIGHTLOOM_DATA. Leave empty to name your own tables."""
    events: str | None = None
    """Events table: a CSV, JSON, Parquet, Arrow or Excel file, packed or not, a folder or a pattern of them, or a SQL address such as
    postgresql://host/db?table=events. `?query=SELECT ...` is taken as written to its end."""
    items: str | None = None
    """Items table: same forms as events. Without it the items are those seen in the events."""
    users: str | None = None
    """Users table: attributes used for slices only."""
    links: str | None = None
    """Links between users: friend, follows, trusts."""
    store: str = "own"
    """What people did by day at the service is added to the tables: `own` (this recommender's store, if there is one), `none`, the name of
    another recommender, or a store's file. See docs/service-store.md."""
    pseudonyms: bool = False
    """Whether ids of people become pseudonyms (HMAC-SHA256 with NIGHTLOOM_PRIVACY_KEY) before anything is written."""
    event_filter: EventFilterConfig = EventFilterConfig()
    """Which part of the events is taken. Empty: all."""
    columns: dict[TableName, dict[str, str]] = Field(default_factory=dict)
    """Per table: our column name -> your column name. Columns not named keep their own name only if they are ours.
    Where events have no times: `order:` a column with each event's position, or `order: random` for a random split."""
    features: dict[str, FeatureKind] = Field(default_factory=dict)
    """Item column -> text, category, tags, number, image (never inferred: paths or bytes) or ignore; what is not said is inferred.
    Context column of the events -> category or number; whole numbers are categories where nothing is said."""
    tags_separator: str = Field("|", min_length=1)
    """What separates the values of a tags column."""
    encoding: str | dict[TableName, str] = "utf-8"
    """Encoding of text files; one for all tables, or table: encoding each."""
    separator: str | dict[TableName, str] = ","
    """Column separator of text files: ";", "\\t", "::" and the like, or `whitespace`; one for all tables, or table: separator each."""
    header: bool | dict[TableName, bool] = True
    """Whether the first line of text files names the columns. If not, they are named "1", "2", ...; one for all tables, or one each."""
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Unit of numeric timestamps (since 1970, UTC). With auto it is inferred from the size of the numbers."""

    @field_validator("columns", mode="before")
    @classmethod
    def _numbered_columns(cls, given: Any) -> Any:
        """Columns without a header are named "1", "2", ..., which YAML reads as numbers."""
        if not isinstance(given, Mapping):
            return given
        return {
            table: {own: str(name) if type(name) is int else name for own, name in named.items()} if isinstance(named, Mapping) else named
            for table, named in given.items()
        }

    @property
    def random_order(self) -> bool:
        """Whether events are put in a random order, since nothing tells when they happened."""
        return self.columns.get("events", {}).get("order") == RANDOM

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if (self.set is None) == (self.events is None):
            raise ValueError("name either `set` (a named data set) or `events` (your own table), not both and not neither")
        return self

    @model_validator(mode="after")
    def _no_secrets(self) -> DataConfig:
        # The config is kept with every run, in MLflow, in Prefect and in the report: a password in it would be too.
        for table in ("events", "items", "users", "links"):
            if has_secret(getattr(self, table) or ""):
                raise ValueError(
                    f"the address of `{table}` holds a password or key: leave it out and set NIGHTLOOM_SQL_PASSWORD in the environment"
                )
        return self


class ValidationConfig(Section):
    """The limits beyond which a night stops before any training."""

    suite: str = "base"
    """File in expectations/ that holds the suites: base, or a domain's own."""
    max_bad_share: Share | dict[TableName, Share] = 0.01
    """Largest share of rows of a table that may be quarantined; beyond it the night stops. One for all tables, or table: share each."""
    min_events: int = Field(100, ge=1, le=10**12)
    """Fewest good events with which training makes sense."""
    max_shrink: float = Field(0.2, ge=0, le=1)
    """Largest share by which a table may shrink against the last night."""
    max_age_days: float | None = Field(None, gt=0, le=36_500)
    """Oldest that the newest event may be, in days before the night. Empty: not checked (historical data)."""
    min_positive_share: float = Field(0.01, ge=0, le=1)
    """Smallest share of events that are positive (label balance)."""
    value_range: tuple[float, float] | None = None
    """Allowed range of `value`, for example [1, 5] for ratings."""
    allowed_events: tuple[str, ...] | None = None
    """Allowed event names. Empty: any."""

    @field_validator("value_range")
    @classmethod
    def _from_low_to_high(cls, given: tuple[float, float] | None) -> tuple[float, float] | None:
        if given is not None and given[0] > given[1]:
            raise ValueError(f"write the lower end first: [{given[1]:g}, {given[0]:g}]")
        return given


class PrepareConfig(Section):
    """Cleaning, labels and the split."""

    positive_events: tuple[str, ...] | None = None
    """Event names that count as positive. Empty: all."""
    positive_min_value: float | None = None
    """Smallest `value` that counts as positive. Empty: any."""
    seen_events: tuple[str, ...] | None = None
    """Event names after which an item is not recommended again, under `evaluation.exclude_seen`. Empty: those of `positive_events`."""
    keep_repeats: bool = False
    """Whether all of a user's events on an item are kept (a shop), or the first (a film) and the first positive one."""
    max_user_events_per_day: int = Field(5000, ge=1, le=1_000_000_000)
    """Users with a day of more events than this are taken for robots and left out (outliers)."""
    min_user_events: int = Field(1, ge=1, le=1_000_000_000)
    """Users with fewer events are left out (noise)."""
    min_item_events: int = Field(0, ge=0, le=1_000_000_000)
    """Items with fewer events lose those events (noise); the items stay in the catalogue."""
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    """Temporal and random split: share of positive events, by time, for validation."""
    test_share: float = Field(0.2, gt=0, lt=0.5)
    """Temporal and random split: share of positive events, by time, for the test."""
