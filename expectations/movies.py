"""Films: the base contract, and a title for every film since the language model reads it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from expectations import base
from expectations.rules import Contract
from nightloom.config import RunConfig
from nightloom.data.tables.schema import Tables

UNTITLED = "look at the titles of the catalogue; films without one are told apart by id and genre alone"


def contracts(tables: Tables, config: RunConfig, last: Mapping[str, int] | None, now: datetime) -> dict[str, Contract]:
    """Contracts by table name; arguments as in `base.contracts`."""
    found = base.contracts(tables, config, last, now)
    if tables.items is not None and "title" in tables.items:
        found["items"] = base.more(found["items"], table=(base.titled("films", UNTITLED),))
    return found
