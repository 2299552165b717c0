"""Canonical tables with what the service has kept since: later events, new and changed items, and without users who asked to go."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.config import DataConfig
from nightloom.data.sources.raw import UNREADABLE_COLUMNS
from nightloom.data.sources.service_store import SaidItem, StoreRows
from nightloom.data.tables.canonical import random_order
from nightloom.data.tables.convert import to_numbers, to_text
from nightloom.data.tables.features import item_kinds
from nightloom.data.tables.schema import Tables

FORGOTTEN = "users who asked to be forgotten"
DELETED = "items that were deleted at the service"


class LaidOver:
    """A store's events over those of a large source, which are read a piece at a time.

    Args:
        rows: of the store.
        data: see `with_store`.

    Attributes:
        left_out: reason -> events so far.
    """

    def __init__(self, rows: StoreRows, data: DataConfig) -> None:
        self.left_out: dict[str, int] = {}
        self._rows, self._data = rows, data

    @property
    def said(self) -> list[list[str]]:
        """What it depends on, besides the store's own events, which of the source's events stay."""
        return [sorted(self._rows.forgotten), sorted(_deleted(self._rows))]

    def stay(self, events: pd.DataFrame, *, own: bool = True) -> pd.DataFrame:
        """Events, of the source or of the store, that count."""
        return _staying(events, np.full(len(events), own), self._rows, self.left_out)

    def added(self, head: pd.DataFrame) -> pd.DataFrame | None:
        """The store's events that count, with the columns of the source's; None where their columns or order depend on these."""
        if "timestamp" not in head:
            return None
        made = _of_store(head, self._rows.events, self._data, 0)
        return self.stay(made[list(head)], own=False) if set(made) == set(head) else None


def with_store(tables: Tables, rows: StoreRows, data: DataConfig, laid: LaidOver | None = None) -> tuple[Tables, dict[str, int]]:
    """Lay a store's rows over the tables of the config's own sources; doing so twice changes nothing more.

    Events are added after the others; events without times get places after the last. What was said of an item by day wins over the
    items table. Items of events that no table describes stay unknown, as they are without a store.

    Args:
        tables: canonical tables.
        rows: of the store.
        data: `features`, `columns` and `tags_separator` count.
        laid: what has laid the store's events over the others; None where that is done here.

    Returns:
        The tables, and reason -> events that were left out.
    """
    notes: list[str] = []
    events, left_out = tables.events, dict[str, int]() if laid is None else laid.left_out
    if laid is None:
        events = _events(tables.events, rows.events, data)
        events = _staying(events, np.arange(len(events)) < len(tables.events), rows, left_out).reset_index(drop=True)
    items, features, rejected = _items(tables, events, rows, data, notes)
    made = replace(
        tables,
        events=events,
        items=items,
        users=_without(tables.users, rows, "user_id"),
        links=_without(tables.links, rows, "user_id", "other_id"),
        features=features,
        rejected={**tables.rejected, **rejected},
        notes=[*tables.notes, *notes],
    )
    return made, left_out


def _without(table: pd.DataFrame | None, rows: StoreRows, *columns: str) -> pd.DataFrame | None:
    if table is None or not rows.forgotten:
        return table
    return table[~table[list(columns)].isin(rows.forgotten).any(axis=1)].reset_index(drop=True)


def _deleted(rows: StoreRows) -> set[str]:
    return {item.item_id for item in rows.items if item.deleted}


def _staying(events: pd.DataFrame, own: NDArray[np.bool_], rows: StoreRows, left_out: dict[str, int]) -> pd.DataFrame:
    """Events that count; how many do not is added to `left_out`, by reason."""
    forgotten = own & events["user_id"].isin(rows.forgotten).to_numpy()  # what came after they asked is of the store, and stays
    deleted = ~forgotten & events["item_id"].isin(_deleted(rows)).to_numpy()
    for reason, out in ((FORGOTTEN, forgotten), (DELETED, deleted)):
        if out.any():
            left_out[reason] = left_out.get(reason, 0) + int(out.sum())
    return events[~forgotten & ~deleted]


def _events(own: pd.DataFrame, added: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """The own events, then the store's."""
    if added.empty:
        return own
    made = _of_store(own, added, data, 0 if "timestamp" in own else int(own["order"].max()) + 1)
    joined = pd.concat([own, made], ignore_index=True)
    if data.random_order:
        joined["order"] = random_order(joined)
    return joined


def _of_store(own: pd.DataFrame, added: pd.DataFrame, data: DataConfig, place: int) -> pd.DataFrame:
    """The store's events with the columns that others have; without times their places begin at `place`."""
    said = {name: added[name].astype("str") for name in ("user_id", "item_id", "event")}
    made = pd.DataFrame(said)
    made["value"] = added["value"].astype("float64")
    if "timestamp" in own:
        made["timestamp"] = pd.to_datetime(added["timestamp"].astype("int64"), unit="ms", utc=True).dt.as_unit("ms")
    else:
        made["order"] = place + np.arange(len(made), dtype=np.int64)
    context = [name for name in own if name not in made]
    if context:
        parsed = added["context"].map(lambda cell: json.loads(cell) if isinstance(cell, str) else {})
        for name in context:
            column = parsed.map(lambda cell, name=name: cell.get(name)).astype(object)
            made[name] = to_numbers(column)[0] if own[name].dtype.kind == "f" else to_text(column, data.tags_separator)
    if "value" not in own and made["value"].isna().all():
        made = made.drop(columns="value")
    return made


def _items(
    tables: Tables, events: pd.DataFrame, rows: StoreRows, data: DataConfig, notes: list[str]
) -> tuple[pd.DataFrame | None, dict[str, str], dict[str, pd.DataFrame]]:
    """The items table with what was said by day, the kinds of its columns, and rejected rows."""
    said = {item.item_id: item for item in rows.items}
    if not said:
        return tables.items, dict(tables.features), {}
    items, features = tables.items, dict(tables.features)
    if items is None:
        if all(item.deleted for item in rows.items):
            return None, features, {}
        items = pd.DataFrame({"item_id": events["item_id"].drop_duplicates().to_numpy()})
        raw = pd.DataFrame([dict(item.columns) for item in rows.items if not item.deleted]).astype(object)
        kinds = item_kinds(raw, {name: kind for name, kind in data.features.items() if name in raw}, data.tags_separator)
        features = {name: kind for name, kind in kinds.items() if kind not in ("ignore", "image") and name != "item_id"}
        items = items.assign(**{name: pd.Series(np.nan, index=items.index, dtype=_dtype(kind)) for name, kind in features.items()})
    described = [str(name) for name in items if name != "item_id"]
    unknown = sorted({name for item in rows.items for name in item.columns} - {*described, "item_id"})
    if unknown:
        notes.append(f"items: the service was told columns that the items table does not have, and they are left out: {', '.join(unknown)}")
    changed, bad = _changed(items, [item for item in rows.items if not item.deleted], features, data.tags_separator)
    stay = ~items["item_id"].isin({item.item_id for item in rows.items if item.deleted}.union(changed["item_id"]))
    place = pd.concat([items["item_id"], changed["item_id"]]).drop_duplicates()
    joined = pd.concat([items[stay], changed]).set_index("item_id")
    joined = joined.loc[[item_id for item_id in place if item_id in joined.index]].reset_index()[list(items)]
    if bad.empty:
        return joined, features, {}
    before = tables.rejected.get("items", bad.iloc[:0])
    return joined, features, {"items": pd.concat([before, bad], ignore_index=True)}


def _changed(items: pd.DataFrame, said: list[SaidItem], features: dict[str, str], separator: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of items that were said anew or changed, and those that can not be: `file`, `row`, `raw`, `reason`."""
    described = [str(name) for name in items if name != "item_id"]
    before = items[items["item_id"].isin({item.item_id for item in said})].drop_duplicates("item_id").set_index("item_id")
    made: dict[str, Any] = {"item_id": pd.Series([item.item_id for item in said], dtype="str")}
    reasons = ["" for _ in said]
    for name in described:
        given = pd.Series([item.columns.get(name) for item in said], dtype=object)
        if features.get(name) == "image":  # whoever may send items may not thereby name files of this machine
            given[:] = None
        column = given if features.get(name) == "image" else to_text(given, separator)
        if items[name].dtype.kind == "f":
            column, wrong = to_numbers(given)
            reasons = [f"{one}; {name} is not a number".removeprefix("; ") if odd else one for one, odd in zip(reasons, wrong, strict=True)]
        keep = np.array([not item.whole and name not in item.columns and item.item_id in before.index for item in said], dtype=bool)
        keep |= np.array([features.get(name) == "image" and item.item_id in before.index for item in said], dtype=bool)
        if keep.any():
            old = before[name].reindex([item.item_id for item in said]).reset_index(drop=True)
            column = column.where(~keep, old)
        made[name] = column.astype(items[name].dtype)
    good = np.array([not reason for reason in reasons], dtype=bool)
    faulty = [
        {"file": "the service's store", "row": place + 1, "raw": _raw(item), "reason": reason}
        for place, (item, reason) in enumerate(zip(said, reasons, strict=True))
        if reason
    ]
    bad = pd.DataFrame(faulty, columns=list(UNREADABLE_COLUMNS)).astype({"file": "str", "row": "int64", "raw": "str", "reason": "str"})
    return pd.DataFrame(made)[good], bad


def _dtype(kind: str) -> str:
    return "float64" if kind == "number" else "str"


def _raw(item: SaidItem) -> str:
    return json.dumps({"item_id": item.item_id, **item.columns}, ensure_ascii=False)
