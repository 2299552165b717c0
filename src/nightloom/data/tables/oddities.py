"""What looks right and may not be: ids of two tables that do not meet, event names that look alike, one user with a large share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable

import pandas as pd

from nightloom.core.errors import InputError
from nightloom.data.tables.schema import Tables

LARGE_SHARE = 0.2
"""Share of all events from which on one user is worth a warning."""
FEW_EVENTS, FEW_USERS = 100, 10
"""Below so many events or users a large share says nothing."""
FEW_KNOWN = 0.5
"""Share of the events' users that the users table should know."""

SPELLINGS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "in upper and lower case": lambda ids: ids.str.lower(),
    "in leading zeros": lambda ids: ids.str.lstrip("0"),
    "in quotes around them": lambda ids: ids.str.strip("\"'"),
    "in what stands before the number": lambda ids: ids.str.replace(r"^\D+", "", regex=True),
}
"""Changes that may make ids of two tables meet."""


def ids_meet(tables: Tables) -> None:
    """Refuse an items or users table of which no id is in the events.

    Raises:
        InputError: two tables have no id in common; names ids of both.
    """
    for name, own in (("items", "item_id"), ("users", "user_id")):
        table = tables.present().get(name)
        if table is None or tables.events[own].isin(table[own]).any():
            continue
        events, known = tables.events[own].drop_duplicates(), table[own].drop_duplicates()
        theirs, ours = (", ".join(map(repr, ids.head(3))) for ids in (known, events))
        raise InputError(
            f"{name}: none of its {len(known):,} ids is in the events: {name} has {theirs}, events have {ours}{_how_alike(events, known)}. "
            f"Write both in one spelling, or correct data.columns.{name}.{own} or data.columns.events.{own}."
        )


def oddities(tables: Tables) -> list[str]:
    """Sentences on what a person should look at; nothing is changed."""
    events = tables.events
    found = _names_alike(events["event"])
    counts = events["user_id"].value_counts()
    if len(events) >= FEW_EVENTS and len(counts) >= FEW_USERS and counts.iloc[0] >= LARGE_SHARE * len(events):
        found.append(
            f"events: {counts.iloc[0]:,} of {len(events):,} ({counts.iloc[0] / len(events):.0%}) are of one user, {counts.index[0]!r}. "
            "Is that a person, or an import, a robot or a name for guests? Leave its events out if it is none"
        )
    if tables.users is not None:
        users = pd.Series(counts.index)
        unknown = users[~users.isin(tables.users["user_id"])]
        if len(unknown) > FEW_KNOWN * len(users):
            found.append(
                f"users: {len(unknown):,} of {len(users):,} users with events are not in the users table, for example "
                f"{unknown.iloc[0]!r}: slices by attributes hold the others only"
            )
    return found


def _how_alike(events: pd.Series, known: pd.Series) -> str:
    """What makes ids of two tables differ, where one change makes them meet."""
    for words, change in SPELLINGS.items():
        changed = change(events)
        if changed[changed != ""].isin(change(known)).any():
            return f" (they differ {words})"
    return ""


def _names_alike(names: pd.Series) -> list[str]:
    """Event names that differ in case and signs alone."""
    counts = names.value_counts()
    alike: dict[str, list[str]] = defaultdict(list)
    for name in map(str, counts.index):
        alike[re.sub(r"[\W_]+", "", name.casefold())].append(name)
    return [
        f"events: {' and '.join(f'{name!r} ({counts[name]:,} rows)' for name in group)} look like one event name in several spellings; "
        "each counts as an event type of its own. Write them alike, or name all of them in prepare.positive_events"
        for group in alike.values()
        if len(group) > 1
    ]
