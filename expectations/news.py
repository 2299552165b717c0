"""News: the base contract; no title is both clicked and not clicked at one time, and nearly every item has a title."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pandas as pd

from expectations import base
from expectations.rules import Contract, RowRule
from nightloom.config import RunConfig
from nightloom.data.tables.schema import Tables

UNTITLED = "look at the titles of the catalogue; news is mostly new, and without a title it can hardly be recommended"


def contracts(tables: Tables, config: RunConfig, last: Mapping[str, int] | None, now: datetime) -> dict[str, Contract]:
    """Contracts by table name; arguments as in `base.contracts`."""
    found = base.contracts(tables, config, last, now)
    reads = ("user_id", "item_id", "event", *(["timestamp"] if "timestamp" in tables.events else []))
    contradicting = RowRule("event", "an impression of what the same reader clicked", _contradicts, reads=reads)
    found["events"] = base.more(found["events"], (contradicting,))
    if tables.items is not None and "title" in tables.items:
        found["items"] = base.more(found["items"], table=(base.titled("news", UNTITLED),))
    return found


def _contradicts(events: pd.DataFrame) -> pd.Series:
    """Impressions that contradict a click on the same title: at the same time, or at any time where there are none.

    With times, a title that is clicked later is no contradiction.
    """
    shown = pd.MultiIndex.from_frame(events[["user_id", "item_id", *(["timestamp"] if "timestamp" in events else [])]])
    return (events["event"] == "impression") & shown.isin(shown[events["event"] == "click"])
