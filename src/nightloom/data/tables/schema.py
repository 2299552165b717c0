"""The canonical tables. Ids are strings here; they become dense integers in `prepare`.

`events`: user_id, item_id, timestamp (datetime64[ms, UTC]) or order (int64), event (str), value (float64, may be missing)
`items`:  item_id and any described columns (text, category, tags, number, image: the picture's SHA-256)
`users`:  user_id and attributes
`links`:  user_id, other_id
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

REQUIRED: dict[str, tuple[str, ...]] = {
    "events": ("user_id", "item_id"),
    "items": ("item_id",),
    "users": ("user_id",),
    "links": ("user_id", "other_id"),
}
"""Columns without which a table is refused. `events` also needs `timestamp` or `order`."""

OWN: dict[str, tuple[str, ...]] = {
    "events": ("user_id", "item_id", "timestamp", "order", "event", "value"),
    "items": ("item_id",),
    "users": ("user_id",),
    "links": ("user_id", "other_id"),
}
"""Columns with a fixed meaning; all others are attributes or context."""


@dataclass
class Tables:
    """Canonical tables of one snapshot.

    Attributes:
        events: one row an event, in the order of the source.
        items: one row an item, or None when the source has none.
        users: one row a user, or None.
        links: one row a link, or None.
        rejected: table name -> rows that could not be read as canonical: `file`, `row` (1-based, in
            that file, header not counted), `raw` (the row as JSON text, or as it stands), `reason`.
        features: item column -> kind (text, category, tags, number, image).
        pictures: file that says where the pictures of image columns lie (`nightloom.data.tables.pictures`), or None.
        notes: what a person should know of the tables, in sentences.
    """

    events: pd.DataFrame
    items: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    links: pd.DataFrame | None = None
    rejected: dict[str, pd.DataFrame] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    pictures: Path | None = None
    notes: list[str] = field(default_factory=list)

    def present(self) -> dict[str, pd.DataFrame]:
        """The tables that exist, by name."""
        named = {"events": self.events, "items": self.items, "users": self.users, "links": self.links}
        return {name: table for name, table in named.items() if table is not None}
