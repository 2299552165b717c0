"""The contract of all domains: nulls, ranges, sets, uniqueness, foreign keys, counts, freshness, label balance.

A domain's own file has a `contracts` function of the same signature and may build on this one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from expectations.engine import gxe
from expectations.rules import Contract, RowRule, TableRule
from nightloom.config import RunConfig
from nightloom.data.tables.coded import spelt_column
from nightloom.data.tables.pictures import UNREADABLE
from nightloom.data.tables.schema import Tables

EARLIEST = pd.Timestamp("1990-01-01", tz="UTC")
"""Events before this hint at a wrong unit: today's seconds, read as milliseconds, lie in January 1970."""

SLACK = timedelta(hours=1)
"""Clocks differ: an event this far ahead is not yet in the future."""

POSITIVE = "positive__"
"""Helper column of the good events: 1 where the event is positive, else 0."""

HAS_TEXT = "has_text__"
"""Helper column of the good items: 1 where any text column has text, else 0. Only where there are text columns."""


def contracts(tables: Tables, config: RunConfig, last: Mapping[str, int] | None, now: datetime) -> dict[str, Contract]:
    """Contracts by table name, for the present tables.

    Args:
        tables: canonical tables, whose columns have passed their checks.
        config: limits and allowed values are its `validation` section.
        last: rows per table of the last night, None on the first.
        now: when the night runs, with time zone.
    """
    found = {"events": Contract(_event_rows(tables, config, now), _event_table(tables, config, now))}
    if tables.items is not None:
        found["items"] = Contract((*_id("item_id"), unique("item_id")), (*_texts(tables), *_pictures(tables, config)))
    if tables.users is not None:
        found["users"] = Contract((*_id("user_id"), unique("user_id")))
    if tables.links is not None:
        found["links"] = Contract((*_id("user_id"), *_id("other_id"), *_ends(tables)))
    for name, contract in found.items():
        if last and last.get(name):
            found[name] = Contract(contract.rows, (*contract.table, _size(name, last[name], config)))
    return found


def unique(column: str) -> RowRule:
    """The first row with an id stays; the others go to the quarantine."""
    return RowRule(column, "appears more than once", lambda table: table[column].duplicated() & table[column].notna(), reads=(column,))


def known(column: str, ids: pd.Series, where: str) -> RowRule:
    """A foreign key: the id is in another table."""
    there = pa.array(ids, from_pandas=True)

    def breaks(table: pd.DataFrame) -> pd.Series:
        values = pa.array(table[column], from_pandas=True)
        found = pc.is_in(values, value_set=there.cast(values.type))
        return table[column].notna() & ~found.to_pandas().set_axis(table.index)

    return RowRule(column, f"not in {where}", breaks, reads=(column,), alone=True)


def given(column: str) -> RowRule:
    """Every row has a value."""
    return RowRule(column, "missing", expectation=gxe.ExpectColumnValuesToNotBeNull(column=column))


def between(column: str, name: str, low: object = None, high: object = None) -> RowRule:
    """Values lie in a closed range; missing values pass."""
    return RowRule(column, name, expectation=gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high))


def titled(things: str, remedy: str, column: str = "title") -> TableRule:
    """Nearly every item has a title, since the language model reads it."""
    return TableRule(
        column, f"a {column} for 95% of {things}", gxe.ExpectColumnValuesToNotBeNull(column=column, mostly=0.95, severity="warning"), remedy
    )


def more(contract: Contract, rows: tuple[RowRule, ...] = (), table: tuple[TableRule, ...] = ()) -> Contract:
    """A contract with a domain's own rules after the base ones."""
    return Contract((*contract.rows, *rows), (*contract.table, *table))


def _id(column: str) -> tuple[RowRule, ...]:
    return (
        given(column),
        RowRule(column, "blank", expectation=gxe.ExpectColumnValuesToMatchRegex(column=column, regex=r"\S")),
    )


def _event_rows(tables: Tables, config: RunConfig, now: datetime) -> tuple[RowRule, ...]:
    limits, events = config.validation, tables.events
    rules = [*_id("user_id"), *_id("item_id")]
    if tables.items is not None:
        rules.append(known("item_id", tables.items["item_id"], "items"))
    if "timestamp" in events:
        rules += [
            given("timestamp"),
            between("timestamp", "in the future", high=now + SLACK),
            between("timestamp", f"before {EARLIEST.year}, perhaps in another unit (data.time_unit)", low=EARLIEST.to_pydatetime()),
        ]
    else:
        rules.append(given("order"))
    rules += _id("event")
    if limits.allowed_events is not None:
        allowed = list(limits.allowed_events)
        inside = gxe.ExpectColumnValuesToBeInSet(column="event", value_set=allowed)
        rules.append(RowRule("event", f"not one of {', '.join(allowed)}", expectation=inside))
    if "value" in events:
        if limits.value_range is not None:
            low, high = limits.value_range
            rules.append(between("value", f"outside {low:g} to {high:g}", low, high))
        else:
            rules.append(between("value", "infinite", -sys.float_info.max, sys.float_info.max))
    return tuple(rules)


def _event_table(tables: Tables, config: RunConfig, now: datetime) -> tuple[TableRule, ...]:
    limits = config.validation
    rules = [
        TableRule(
            "",
            f"at least {limits.min_events:,} good events",
            gxe.ExpectTableRowCountToBeBetween(min_value=limits.min_events),
            "collect more events, or lower validation.min_events",
        ),
        TableRule(
            POSITIVE,
            f"at least {limits.min_positive_share:.1%} of events positive (label balance)",
            gxe.ExpectColumnMeanToBeBetween(column=POSITIVE, min_value=limits.min_positive_share),
            "look at prepare.positive_events and prepare.positive_min_value, or lower validation.min_positive_share",
        ),
    ]
    if "timestamp" in tables.events and limits.max_age_days is not None:
        rules.append(
            TableRule(
                "timestamp",
                f"newest event at most {limits.max_age_days:g} days old",
                gxe.ExpectColumnMaxToBeBetween(column="timestamp", min_value=now - timedelta(days=limits.max_age_days)),
                "look why no newer events arrive, or raise validation.max_age_days",
            )
        )
    return tuple(rules)


def text_columns(tables: Tables) -> list[str]:
    """Columns of the items that the language model reads."""
    return [
        column for column, feature in tables.features.items() if feature == "text" and tables.items is not None and column in tables.items
    ]


def _texts(tables: Tables) -> tuple[TableRule, ...]:
    """An item without text is learned by id and attributes alone: allowed, with a warning."""
    if not text_columns(tables):
        return ()
    return (
        TableRule(
            HAS_TEXT,
            "text for every item",
            gxe.ExpectColumnMeanToBeBetween(column=HAS_TEXT, min_value=1, severity="warning"),
            "items without text are told apart by id and attributes alone; new ones among them can hardly be recommended",
        ),
    )


def _pictures(tables: Tables, config: RunConfig) -> tuple[TableRule, ...]:
    """An item without a picture is allowed, with a warning; nearly all named pictures must be readable."""
    items, limit, rules = tables.items, config.pretrained.max_bad_images, []
    if items is None:
        return ()
    for column in (column for column, kind in tables.features.items() if kind == "image" and column in items):
        named = items[column].dropna()
        lost = named[named.str.startswith(UNREADABLE)].str.removeprefix(UNREADABLE)
        example = f", for example {lost.iloc[0]}" if len(lost) else ""
        rules += [
            TableRule(
                column,
                f"at least {1 - limit:.1%} of the {len(named):,} named pictures to be files that can be read",
                gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=f"^{UNREADABLE}", mostly=1 - limit, severity="critical"),
                f"look for the {len(lost):,} that can not be read{example} (relative paths start from the folder of the items table), "
                "or raise pretrained.max_bad_images",
            ),
            TableRule(
                column,
                "a picture for every item",
                gxe.ExpectColumnValuesToNotBeNull(column=column, severity="warning"),
                "items without a picture are told apart by the rest that is known of them",
            ),
        ]
    return tuple(rules)


def _ends(tables: Tables) -> tuple[RowRule, ...]:
    active = spelt_column(tables.events["user_id"].drop_duplicates())
    users = pd.concat([active, *([tables.users["user_id"]] if tables.users is not None else [])]).drop_duplicates()
    return (
        known("user_id", users, "users or events"),
        known("other_id", users, "users or events"),
        RowRule("other_id", "links a user to itself", lambda t: t["user_id"].notna() & (t["user_id"] == t["other_id"])),
    )


def _size(name: str, before: int, config: RunConfig) -> TableRule:
    least = int(before * (1 - config.validation.max_shrink))
    return TableRule(
        "",
        f"at least {least:,} rows, {config.validation.max_shrink:.0%} under the last night's {before:,}",
        gxe.ExpectTableRowCountToBeBetween(min_value=least),
        f"look whether the source of {name} is complete, or raise validation.max_shrink",
    )
