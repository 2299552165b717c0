"""A shop: the base contract; quantities fit their event, prices are not negative, returns are few, and goods have titles and prices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pandas as pd

from expectations import base
from expectations.engine import gxe
from expectations.rules import Contract, RowRule, TableRule
from nightloom.config import RunConfig
from nightloom.data.tables.blocks import head_of
from nightloom.data.tables.schema import Tables

MOST_RETURNS = 0.2
"""Share of returns beyond which something is wrong with the goods or with the table."""
LINE = ("event", "value")
UNTITLED = "look at the descriptions of the goods; those without one are told apart by id alone"
UNPRICED = "look at the prices of the catalogue; goods without one were never sold for money"


def contracts(tables: Tables, config: RunConfig, last: Mapping[str, int] | None, now: datetime) -> dict[str, Contract]:
    """Contracts by table name; arguments as in `base.contracts`."""
    found = base.contracts(tables, config, last, now)
    found["events"] = base.more(found["events"], _rows(tables.events), (_few_returns(),))
    if tables.items is not None:
        titles = (base.titled("goods", UNTITLED),) if "title" in tables.items else ()
        prices = (base.titled("goods", UNPRICED, "price"),) if "price" in tables.items else ()
        found["items"] = base.more(found["items"], table=titles + prices)
    return found


def _rows(events: pd.DataFrame) -> tuple[RowRule, ...]:
    """Rules of an invoice line, of the columns that are there; what is missing is not judged."""
    rules = []
    if "value" in events:
        none, kept = "a purchase of no or a negative quantity", "a return of no or a positive quantity"
        sold = RowRule("value", none, lambda t: (t["event"] == "purchase") & t["value"].le(0), reads=LINE, alone=True)
        back = RowRule("value", kept, lambda t: (t["event"] == "return") & t["value"].ge(0), reads=LINE, alone=True)
        rules += [sold, back]
    if "price" in events and pd.api.types.is_numeric_dtype(head_of(events)["price"].dtype):
        rules.append(base.between("price", "negative", low=0))
    return tuple(rules)


def _few_returns() -> TableRule:
    return TableRule(
        "event",
        f"at most {MOST_RETURNS:.0%} returns",
        gxe.ExpectColumnValuesToNotBeInSet(column="event", value_set=["return"], mostly=1 - MOST_RETURNS, severity="warning"),
        "look whether purchases are missing, or which goods come back",
    )
