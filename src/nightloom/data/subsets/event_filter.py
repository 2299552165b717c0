"""A part of the events, where the config sets one: a range of days, or a share of the users. The catalogue stays whole.

The part becomes a snapshot like any other, so all later stages read it as if there were no more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from nightloom.config import EventFilterConfig
from nightloom.core.errors import InputError
from nightloom.data.tables.schema import Tables

LOT = 0
"""Seed of the draw of users. It is not configurable: the data behind a name must not change with the seed of training."""


def filter_events(tables: Tables, only: EventFilterConfig) -> tuple[Tables, dict[str, int]]:
    """The events that the filter keeps, and the users and links that still have some.

    Args:
        tables: canonical tables.
        only: the filter.

    Returns:
        The tables (unchanged where the filter is empty), and reason -> events left out.

    Raises:
        InputError: days are named and the events have no times, or no event is left.
    """
    events, left_out = tables.events, dict[str, int]()
    days = [pd.Timestamp(day, tz="UTC") if day else None for day in (only.since, only.before)]
    if any(days) and "timestamp" not in events:
        raise InputError(
            "data.event_filter: since and before need events with times, and these have an order alone. Use users_share, or neither."
        )
    for day, early in zip(days, (True, False), strict=True):
        if day is not None:
            out = events["timestamp"].lt(day) == early
            left_out[f"{'before' if early else 'from'} {day:%Y-%m-%d}{'' if early else ' on'}"] = int(out.sum())
            events = events[~out]
    if only.users_share < 1:
        ids = np.sort(tables.events["user_id"].unique().astype(object))
        drawn = np.random.default_rng(LOT).permutation(ids)[: max(1, round(only.users_share * len(ids)))]
        out = ~events["user_id"].isin(drawn)
        left_out[f"users that were not drawn (the share to keep is {only.users_share:g})"] = int(out.sum())
        events = events[~out]
    if not left_out:
        return tables, {}
    if events.empty:
        raise InputError(f"data.event_filter: none of {len(tables.events):,} events is left: {left_out}. Ask for a larger part.")
    known = set(events["user_id"])
    users, links = tables.users, tables.links
    kept = replace(
        tables,
        events=events.reset_index(drop=True),
        users=None if users is None else users[users["user_id"].isin(known)].reset_index(drop=True),
        links=None if links is None else links[links["user_id"].isin(known) & links["other_id"].isin(known)].reset_index(drop=True),
    )
    return kept, left_out
