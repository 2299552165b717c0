"""What a column may mean: by its name, and by what it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from nightloom.core.errors import InputError
from nightloom.data.tables.convert import to_ids, to_numbers, to_text, to_times

MEANINGS: dict[str, tuple[str, ...]] = {
    "user_id": (
        *("userid", "user", "uid", "customerid", "customer", "visitorid", "visitor", "reviewerid", "memberid", "member", "clientid"),
        *("client", "accountid", "account", "readerid", "reader", "personid", "listenerid", "deviceid", "sessionid"),
    ),
    "item_id": (
        *("itemid", "item", "iid", "movieid", "movie", "filmid", "film", "productid", "product", "sku", "parentasin", "asin", "articleid"),
        *("article", "bookid", "book", "isbn", "songid", "song", "trackid", "track", "artistid", "artist", "newsid", "news", "businessid"),
        *("gameid", "game", "courseid", "recipeid", "jobid", "videoid", "placeid", "locationid", "stockcode", "adid", "ad"),
    ),
    "timestamp": (
        *("timestamp", "datetime", "time", "ts", "unixreviewtime", "eventtime", "eventdate", "createdat", "date", "at", "when", "day"),
        *("invoicedate", "orderdate", "purchasedate", "reviewtime", "timeframe"),
    ),
    "value": ("rating", "ratings", "stars", "score", "overall", "value", "clk", "clicked", "click", "liked", "weight", "plays", "quantity"),
    "event": ("event", "eventtype", "eventname", "action", "kind", "behavior", "behaviour", "activity", "type"),
    "title": ("title", "name", "movietitle", "productname", "itemname", "headline", "description"),
}
"""Our column -> names that others give it, the likeliest first; compared in lower case without signs."""
UNIQUE = 0.95
"""Share of different values from which on a column may tell rows apart."""
MOST_EVENTS = 20
"""A column of event types has at most so many values."""
ENOUGH = 0.9
"""Share of the values that must be as expected."""


def short(name: str) -> str:
    """A column's name as it is compared: lower case, no signs, without RecBole's type."""
    return re.sub(r"[^a-z0-9]", "", name.lower().split(":")[0])


def own_name(name: str, taken: Iterable[str]) -> str:
    """A name of ours for a described column: plain letters, and none that is taken."""
    plain = re.sub(r"\W+", "_", name.split(":")[0].strip().lower()).strip("_") or "column"
    plain = f"column_{plain}" if plain[0].isdigit() else plain
    return next(one for one in (plain, *(f"{plain}_{number}" for number in range(2, 1000))) if one not in taken)


def named(frame: pd.DataFrame, meaning: str) -> list[str]:
    """Columns whose name has a meaning, the likeliest first."""
    names = MEANINGS[meaning]
    return sorted((column for column in map(str, frame) if short(column) in names), key=lambda column: names.index(short(column)))


def is_time(column: pd.Series) -> bool:
    """Whether nearly all values are times."""
    if pd.api.types.is_bool_dtype(column.dtype) or column.isna().all():
        return False
    try:
        _, faults = to_times(column, "auto", "")
    except InputError:
        return False
    return sum(int(rows.sum()) for rows in faults.values()) <= (1 - ENOUGH) * len(column)


def is_value(column: pd.Series) -> bool:
    """Whether nearly all values are numbers, and few different ones, as ratings are."""
    numbers, bad = to_numbers(column)
    known = numbers.dropna()
    return len(known) >= ENOUGH * len(column) and not bad.any() and known.nunique() <= max(MOST_EVENTS, len(known) // 50)


def is_event(column: pd.Series) -> bool:
    """Whether a column holds a few words."""
    words = to_text(column).dropna().str.strip()
    few = 0 < words.nunique() <= MOST_EVENTS and len(words) >= ENOUGH * len(column)
    return bool(few and words.str.contains("[A-Za-z]").mean() >= ENOUGH)


def is_key(column: pd.Series) -> bool:
    """Whether nearly each row has a value of its own; the contract puts the later ones of a value aside."""
    ids, missing = to_ids(column)
    return bool(missing.mean() <= 1 - ENOUGH and ids[~missing].nunique() >= UNIQUE * (~missing).sum())


def overlap(column: pd.Series, key: pd.Series) -> tuple[float, float]:
    """Share of a column's distinct ids that a key has, and share of both that they have in common; the second tells 1, 2, 3 from 1, 2."""
    ids, known = (set(to_ids(one)[0].dropna()) for one in (column, key))
    shared = len(ids & known)
    return (shared / len(ids), shared / len(ids | known)) if ids else (0.0, 0.0)
