"""Advertising logs: the base contract; context counts are finite, and there are clicks, but more impressions without one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime

import pandas as pd

from expectations import base
from expectations.engine import gxe
from expectations.rules import Contract, TableRule
from nightloom.config import RunConfig
from nightloom.data.tables.blocks import head_of
from nightloom.data.tables.schema import OWN, Tables

MOST_CLICKS = 0.5
"""Share of clicks beyond which impressions without a click are missing: even samples drawn for their clicks stay far below."""


def contracts(tables: Tables, config: RunConfig, last: Mapping[str, int] | None, now: datetime) -> dict[str, Contract]:
    """Contracts by table name; arguments as in `base.contracts`."""
    found = base.contracts(tables, config, last, now)
    head = head_of(tables.events)
    counts = [str(column) for column in head if column not in OWN["events"] and pd.api.types.is_float_dtype(head[column].dtype)]
    finite = tuple(base.between(column, "infinite", -sys.float_info.max, sys.float_info.max) for column in counts)
    both = TableRule(
        "event",
        "clicks and impressions, both",
        gxe.ExpectColumnUniqueValueCountToBeBetween(column="event", min_value=2),
        "look whether only one kind of row arrives; a click probability is learned from both",
    )
    few = TableRule(
        "event",
        f"at most {MOST_CLICKS:.0%} clicks",
        gxe.ExpectColumnValuesToNotBeInSet(column="event", value_set=["click"], mostly=1 - MOST_CLICKS, severity="warning"),
        "look whether impressions without a click are missing; click probabilities are too high without them",
    )
    found["events"] = base.more(found["events"], finite, (both, few))
    return found
