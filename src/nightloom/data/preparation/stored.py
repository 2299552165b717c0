"""Users' histories, looked up in a store of canonical events and read by the rules of stage prepare."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.core.pseudonyms import pseudonyms_of
from nightloom.data.preparation.clean import clean, event_times
from nightloom.data.preparation.labels import is_positive
from nightloom.data.tables.coded import files_of
from nightloom.data.tables.schema import OWN
from nightloom.data.tables.snapshot import check_table


def look_up(place: Path, users: Collection[str], meta: Mapping[str, Any]) -> pd.DataFrame:
    """The events of some users, prepared as for training and evaluation, oldest first.

    Duplicates, robots and repeats are removed by `meta["prepare"]`. The two noise rules need all users' events. So items are left out that
    had too few events in the model's own data, and a user with few events keeps them.

    Args:
        place: canonical events.parquet.
        users: their ids, which are looked up by pseudonyms where the snapshot holds those.
        meta: `meta.json` of stage prepare.

    Returns:
        `user_id`, `item_id`, `event` (the default event type where the model does not know it) and `positive` (bool). Where the store
        has times also `second`, int64, since 1970 UTC.

    Raises:
        DamagedError: the table is one of a snapshot, and no longer what was written.
        InputError: the model does not say how events were prepared, the store lacks a column, or the key of its pseudonyms is not here.
    """
    check_table(place)
    if "prepare" not in meta:
        raise InputError("user ids: this model is of before models said how events are cleaned. Train once more, or send `history`.")
    there = [column for column in OWN["events"] if column in pq.read_schema(files_of(place)[0]).names]
    lacking = {"user_id", "item_id", "event"} - set(there)
    if lacking or not {"timestamp", "order"} & set(there):
        missing = ", ".join(sorted(lacking)) or "timestamp or order"
        raise InputError(f"{place}: no canonical events, {missing} is missing. Name the events.parquet of a snapshot.")
    pseudonyms = pseudonyms_of(place.parent)
    names_of = {pseudonyms(user) if pseudonyms else user: user for user in users}
    rules: Any = SimpleNamespace(**meta["prepare"] | {"min_user_events": 1, "min_item_events": 0})
    events = clean(pd.read_parquet(place, columns=there, filters=[("user_id", "in", sorted(names_of))]), rules)[0]
    events = events[~events["item_id"].isin(meta["rare_items"])]
    events = events.iloc[np.argsort(event_times(events), kind="stable")]
    names = EventNames.of(meta)
    found = events[["item_id"]].assign(
        user_id=events["user_id"].map(names_of),
        event=events["event"].where(events["event"].isin(names.known), names.default),
        positive=is_positive(events, rules),
    )
    return found.assign(second=event_times(events) // 1000) if "timestamp" in there else found
