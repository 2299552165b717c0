"""Reviews: the base contract; every rating has its stars, stars differ, and products have titles."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from expectations import base
from expectations.engine import gxe
from expectations.rules import Contract, RowRule, TableRule
from nightloom.config import RunConfig
from nightloom.data.tables.schema import Tables

LINE = ("event", "value")
UNTITLED = "look at the titles of the catalogue; products without one are told apart by id and brand alone"


def contracts(tables: Tables, config: RunConfig, last: Mapping[str, int] | None, now: datetime) -> dict[str, Contract]:
    """Contracts by table name; arguments as in `base.contracts`."""
    found = base.contracts(tables, config, last, now)
    if "value" in tables.events:
        stars = RowRule("value", "a rating without stars", lambda t: (t["event"] == "rating") & t["value"].isna(), reads=LINE, alone=True)
        differ = TableRule(
            "value",
            "more than one number of stars",
            gxe.ExpectColumnUniqueValueCountToBeBetween(column="value", min_value=2, severity="warning"),
            "look whether `value` is mapped to the column of the stars",
        )
        found["events"] = base.more(found["events"], (stars,), (differ,))
    if tables.items is not None and "title" in tables.items:
        found["items"] = base.more(found["items"], table=(base.titled("products", UNTITLED),))
    return found
