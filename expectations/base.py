"""The contract that every domain's canonical tables keep: types, nulls, ranges, sets, uniqueness, foreign keys, counts.

A domain's own file holds a `contracts` function of the same signature and may build on this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import pandas as pd

from expectations.engine import gxe
from expectations.rules import Contract, RowRule, TableRule
from nightloom.config import RunConfig
from nightloom.data.labels import positive
from nightloom.data.schema import Tables

EARLIEST = pd.Timestamp("1990-01-01", tz="UTC")
"""Events before this are a sign of seconds read as another unit."""

SLACK = timedelta(hours=1)
"""Clocks differ: an event this far ahead is not yet in the future."""


def contracts(tables: Tables, config: RunConfig, last: Mapping[str, int] | None, now: datetime) -> dict[str, Contract]:
    """Contracts by table name, for the tables that are there.

    Args:
        tables: canonical tables.
        config: limits and allowed values are its `validation` section.
        last: rows per table of the last night, None on the first.
        now: when the night runs, with time zone.
    """
    found = {"events": _events(tables, config, now)}
    if tables.items is not None:
        found["items"] = Contract(rows=(*_id("item_id"), unique("item_id")))
    if tables.users is not None:
        found["users"] = Contract(rows=(*_id("user_id"), unique("user_id")))
    if tables.links is not None:
        found["links"] = Contract(rows=(*_id("user_id"), *_id("other_id"), *_ends(tables)))
    for name, contract in found.items():
        if last and last.get(name):
            found[name] = Contract(contract.rows, (*contract.table, _size(name, last[name], config)))
    return found


def unique(column: str) -> RowRule:
    """The first row with an id stays; the others are put aside."""
    return RowRule(column, "appears more than once", lambda table: table[column].duplicated() & table[column].notna())


def known(column: str, ids: pd.Series, where: str) -> RowRule:
    """A foreign key: the id is in another table."""
    return RowRule(column, f"not in {where}", lambda table: table[column].notna() & ~table[column].isin(ids))


def _id(column: str) -> tuple[RowRule, ...]:
    return (
        RowRule(column, "missing", lambda rows: rows[column].isna(), gxe.ExpectColumnValuesToNotBeNull(column=column, severity="critical")),
        RowRule(column, "blank", lambda rows: rows[column].notna() & (rows[column].str.strip() == "")),
    )


def _events(tables: Tables, config: RunConfig, now: datetime) -> Contract:
    limits, events = config.validation, tables.events
    rows = [*_id("user_id"), *_id("item_id")]
    if tables.items is not None:
        rows.append(known("item_id", tables.items["item_id"], "items"))
    whole = [
        TableRule(
            "",
            f"at least {limits.min_events:,} events",
            gxe.ExpectTableRowCountToBeBetween(min_value=limits.min_events),
            "collect more events, or lower validation.min_events",
        )
    ]
    if "timestamp" in events:
        latest = pd.Timestamp(now) + SLACK
        rows += [
            RowRule("timestamp", "missing", lambda t: t["timestamp"].isna(), gxe.ExpectColumnValuesToNotBeNull(column="timestamp")),
            RowRule("timestamp", "in the future", lambda t: t["timestamp"] > latest),
            RowRule("timestamp", f"before {EARLIEST.year}, perhaps in another unit", lambda t: t["timestamp"] < EARLIEST),
        ]
        if limits.max_age_days is not None:
            oldest = pd.Timestamp(now) - pd.Timedelta(days=limits.max_age_days)
            whole.append(
                TableRule(
                    "timestamp",
                    f"newest event at most {limits.max_age_days:g} days old",
                    gxe.ExpectColumnMaxToBeBetween(column="timestamp", min_value=oldest.to_pydatetime()),
                    "look why no newer events arrive, or raise validation.max_age_days",
                )
            )
    rows.append(RowRule("event", "missing", lambda t: t["event"].isna(), gxe.ExpectColumnValuesToNotBeNull(column="event")))
    if limits.allowed_events is not None:
        allowed = list(limits.allowed_events)
        rows.append(
            RowRule(
                "event",
                f"not one of {', '.join(allowed)}",
                lambda t: t["event"].notna() & ~t["event"].isin(allowed),
                gxe.ExpectColumnValuesToBeInSet(column="event", value_set=allowed, severity="critical"),
            )
        )
    if limits.value_range is not None and "value" in events:
        low, high = limits.value_range
        rows.append(
            RowRule(
                "value",
                f"outside {low:g} to {high:g}",
                lambda t: t["value"].notna() & ~t["value"].between(low, high),
                gxe.ExpectColumnValuesToBeBetween(column="value", min_value=low, max_value=high, severity="critical"),
            )
        )
    whole.append(
        TableRule(
            "positive__",
            f"at least {limits.min_positive_share:.1%} of events positive (label balance)",
            gxe.ExpectColumnMeanToBeBetween(column="positive__", min_value=limits.min_positive_share),
            "look at prepare.positive_events and prepare.positive_min_value, or lower validation.min_positive_share",
        )
    )
    return Contract(tuple(rows), tuple(whole))


def labelled(events: pd.DataFrame, config: RunConfig) -> pd.Series:
    """The label as a number, for the balance rule."""
    return pd.Series(positive(events, config.prepare).astype(float), index=events.index)


def _ends(tables: Tables) -> tuple[RowRule, ...]:
    people = pd.concat([tables.events["user_id"], *([tables.users["user_id"]] if tables.users is not None else [])]).drop_duplicates()
    return (
        known("user_id", people, "users or events"),
        known("other_id", people, "users or events"),
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
