"""Social: the base contract; listens have counts, no user follows himself, `self` events are about oneself, links are unique."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import pandas as pd

from expectations import base
from expectations.rules import Contract, RowRule
from nightloom.config import RunConfig
from nightloom.data.tables.schema import Tables

UNNAMED = "look at the names of the catalogue; artists without one are told apart by id and tags alone"
PAIR = ["user_id", "other_id"]
WHO = ("event", "item_id", "user_id")


def contracts(tables: Tables, config: RunConfig, last: Mapping[str, int] | None, now: datetime) -> dict[str, Contract]:
    """Contracts by table name; arguments as in `base.contracts`."""
    found = base.contracts(tables, config, last, now)
    rules = [
        _line("item_id", "follows himself", lambda t: (t["event"] == "follow") & (t["item_id"] == t["user_id"]), WHO),
        _line("item_id", "another in an event `self`", lambda t: (t["event"] == "self") & (t["item_id"] != t["user_id"]), WHO),
    ]
    if "value" in tables.events:
        uncounted = "a listen without a count above zero"
        rules.append(_line("value", uncounted, lambda t: (t["event"] == "listen") & ~t["value"].gt(0), ("event", "value")))
    found["events"] = base.more(found["events"], tuple(rules))
    if tables.items is not None and "name" in tables.items:
        found["items"] = base.more(found["items"], table=(base.titled("artists", UNNAMED, "name"),))
    if "links" in found:
        twice = RowRule("other_id", "linked more than once", lambda t: t.duplicated(PAIR) & t[PAIR].notna().all(axis=1))
        found["links"] = base.more(found["links"], (twice,))
    return found


def _line(column: str, name: str, breaks: Callable[[pd.DataFrame], pd.Series], reads: tuple[str, ...]) -> RowRule:
    """A rule that judges each event by itself."""
    return RowRule(column, name, breaks, reads=reads, alone=True)
