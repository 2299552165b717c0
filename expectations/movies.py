"""Films: the base contract, and a title for every film since the language model reads it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from expectations import base
from expectations.engine import gxe
from expectations.rules import Contract, TableRule
from nightloom.config import RunConfig
from nightloom.data.schema import Tables


def contracts(tables: Tables, config: RunConfig, last: Mapping[str, int] | None, now: datetime) -> dict[str, Contract]:
    """Contracts by table name; arguments as in `base.contracts`."""
    found = base.contracts(tables, config, last, now)
    if tables.items is not None and "title" in tables.items:
        titled = TableRule(
            "title",
            "a title for 95% of films",
            gxe.ExpectColumnValuesToNotBeNull(column="title", mostly=0.95, severity="warning"),
            "look at the titles of the catalogue; films without one are told apart by id and genre alone",
        )
        found["items"] = Contract(found["items"].rows, (*found["items"].table, titled))
    return found
