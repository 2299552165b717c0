"""Raw tables become canonical ones; rows that cannot are set aside, each with its reason."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.core.event_names import UNNAMED
from nightloom.core.yaml_words import scalar
from nightloom.data.sources.raw import UNREADABLE_COLUMNS, RawTable, are_names, told_columns
from nightloom.data.tables.convert import (
    Mask,
    binary_ids,
    decoded,
    inexact_ids,
    listed,
    spelt_by_the_whole,
    to_ids,
    to_numbers,
    to_order,
    to_text,
    to_times,
)
from nightloom.data.tables.features import context_kinds, is_number, item_kinds
from nightloom.data.tables.oddities import Seen, ids_meet, oddities
from nightloom.data.tables.pictures import holds_bytes
from nightloom.data.tables.schema import OWN, REQUIRED, Tables

LOT = "nightloom-events"
"""Key (16 characters) of the lot that puts events in a random order; no setting, so that a name's data do not move with a seed."""


def canonical(raw: Mapping[str, RawTable], data: DataConfig, leave_out: Callable[[Tables], Tables] = lambda made: made) -> Tables:
    """Apply the column map and the canonical types.

    Args:
        raw: table name -> raw table; `events` at least.
        data: `columns`, `features`, `tags_separator` and `time_unit` count.
        leave_out: takes rows out before it is looked whether the tables fit together, so that nothing is said of these.

    Returns:
        The tables, with all rows that could not be converted in `rejected`.

    Raises:
        InputError: a column is missing, times mix units without a majority, or no row of a table can be read.
    """
    of_items = said_of_items(data, raw)
    made = {name: convert_table(table, name, data, of_items) for name, table in raw.items()}
    tables = leave_out(tables_of(made, made["events"].frame))
    return noted(tables, Seen.of(tables.events), made["events"].notes) if data.set is None else tables


@dataclass(frozen=True)
class Converted:
    """A table, or a part of one, with canonical columns.

    Attributes:
        frame: the rows that could be converted.
        aside: those that could not: `file`, `row`, `raw`, `reason`.
        kinds: of the described columns.
        notes: what a person should know.
        decided: what was decided by looking at all rows; parts in which it is equal are converted as their whole would be.
    """

    frame: pd.DataFrame
    aside: pd.DataFrame
    kinds: Mapping[str, str]
    notes: Sequence[str]
    decided: Mapping[str, object]


def convert_table(table: RawTable, name: str, data: DataConfig, of_items: Mapping[str, str]) -> Converted:
    """Apply the column map and the canonical types to one table.

    Args:
        table: as read.
        name: of the table.
        data: see `canonical`.
        of_items: kinds that are said of columns of the items.

    Raises:
        InputError: see `canonical`.
    """
    said = data.columns.get(name)  # type: ignore[call-overload]  # names are table names
    chosen = _choose(table, name, said, whole=name in ("items", "users") or data.set is not None, drawn=data.random_order)
    chosen = pd.DataFrame({own: decoded(column) if _may_be_text(own, data) else column for own, column in chosen.items()})
    _exact(chosen, table, name, said or {})
    kinds: dict[str, str] = {}
    notes: list[str] = []
    if name == "items":
        chosen = pd.DataFrame({own: column if own == "item_id" else listed(column, data.tags_separator) for own, column in chosen.items()})
        kinds = item_kinds(chosen, of_items, data.tags_separator)
    elif name == "events" and data.set is None:
        kinds, notes = context_kinds(chosen, data.features)
    decided: dict[str, object] = {"types": {str(own): str(column.dtype) for own, column in chosen.items()}, "kinds": kinds}
    converted, faults = _convert(chosen, name, kinds, data, table.place, decided)
    bad = np.zeros(len(chosen), dtype=bool)
    for rows in faults.values():
        bad |= rows
    frame = converted[~bad].reset_index(drop=True)
    if name == "events" and data.random_order:
        frame["order"] = random_order(frame)
    aside = pd.concat([table.unreadable, _rejects(table, bad, faults)], ignore_index=True)
    if frame.empty:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in aside["reason"].value_counts().head(5).items())
        raise InputError(
            f"{name}: none of {len(aside):,} rows of {table.place} can be read: {reasons}. The first: {aside['raw'].iloc[0]}. "
            f"Correct the table, or the column map in data.columns.{name}."
        )
    return Converted(frame, aside, kinds, notes, decided)


def tables_of(made: Mapping[str, Converted], events: pd.DataFrame) -> Tables:
    """The tables that were converted one by one.

    Args:
        made: by name.
        events: in the place of those in `made`, which may be a part of them.
    """
    frames = {name: one.frame for name, one in made.items()}
    rejected = {name: sorted_rows(one.aside) for name, one in made.items() if not one.aside.empty}
    kinds = made["items"].kinds if "items" in made else {}
    features = {column: kind for column, kind in kinds.items() if kind != "ignore"}
    return Tables(events, frames.get("items"), frames.get("users"), frames.get("links"), rejected=rejected, features=features)


def noted(tables: Tables, seen: Seen, notes: Sequence[str]) -> Tables:
    """The tables with notes, and what is odd in them.

    Args:
        tables: canonical tables.
        seen: what is in the events' columns.
        notes: what is known already.

    Raises:
        InputError: two tables have no id in common.
    """
    ids_meet(tables, seen)
    return replace(tables, notes=[*notes, *oddities(tables, seen)])


def sorted_rows(aside: pd.DataFrame) -> pd.DataFrame:
    """Rows that could not be read, by file and row."""
    typed = aside.astype({"file": "str", "row": "int64", "raw": "str", "reason": "str"})
    return typed.sort_values(["file", "row"], kind="stable", ignore_index=True)


def said_of_items(data: DataConfig, raw: Mapping[str, RawTable]) -> dict[str, str]:
    """What the config says of the items' columns.

    Raises:
        InputError: it describes some, and there is no items table.
    """
    context = set(data.columns.get("events", {})) - set(OWN["events"]) if data.set is None else set[str]()
    of_items: dict[str, str] = {
        column: kind for column, kind in data.features.items() if column not in context or column in _own(data, raw)
    }
    if set(of_items) and "items" not in raw:
        raise InputError(
            "data.features describes columns of the items table, and there is none. Name it in data.items. "
            "Context columns of the events may be described, too, once they are in data.columns.events."
        )
    return of_items


def _own(data: DataConfig, raw: Mapping[str, RawTable]) -> set[str]:
    """Names that the items' columns have."""
    return set(data.columns.get("items", {})) or (set(map(str, raw["items"].frame)) if "items" in raw else set())


def _may_be_text(own: object, data: DataConfig) -> bool:
    """Whether bytes in a column may stand for text, and are no picture."""
    return data.features.get(str(own)) != "image"


def _exact(chosen: pd.DataFrame, table: RawTable, name: str, said: Mapping[str, str]) -> None:
    """Refuse ids that have lost digits, or are no text."""
    faults = {
        "floating-point numbers above 2**53, or written like 1.23E+15, which hold no exact ids. Write the column as integers or text; "
        "a missing id among integers makes some programs write floats": inexact_ids,
        "bytes that are no text. Write the ids as text, for example in hexadecimal digits": binary_ids,
    }
    for own in REQUIRED[name]:
        for words, find in faults.items():
            rows = np.flatnonzero(find(chosen[own]))
            if len(rows):
                raise InputError(
                    f"{name}: column {said.get(own, own)!r} of {table.files(rows[:1])[0]}: {len(rows):,} of {len(chosen):,} ids such as "
                    f"{chosen[own].iloc[rows[0]]!r} (row {chosen.index[rows[0]]:,}) are {words}."
                )


def random_order(events: pd.DataFrame) -> pd.Series:
    """A random order of events that have none: a lot drawn from user, item and how often the pair came before, int64 [events].

    An event keeps its place among the others when rows are added or the file is sorted anew.
    """
    count = events.groupby(["user_id", "item_id"], sort=False).cumcount().astype("str")
    name = (events["user_id"] + "\0" + events["item_id"] + "\0" + count).to_numpy(dtype=object)
    return pd.Series((pd.util.hash_array(name, hash_key=LOT, categorize=False) >> np.uint64(11)).astype(np.int64), index=events.index)


def _choose(table: RawTable, name: str, said: Mapping[str, str] | None, whole: bool, drawn: bool) -> pd.DataFrame:
    """The columns to keep, under their canonical names: those said, or where nothing is said all (`whole`) or our own.

    Where the order of events is drawn there is no column of it.
    """
    found = [str(column) for column in table.frame.columns]
    frame = table.frame.set_axis(found, axis=1)
    mapping = dict(said or {})
    drawn = drawn and name == "events"
    for own, column in mapping.items():
        if column not in found and not (drawn and own == "order"):
            inner = _inner(frame, column)
            if inner is None:
                raise _missing(table, name, own, column, found)
            frame = frame.assign(**{column: inner})
    for own in OWN[name]:
        if own in found and own not in mapping and not (own in ("timestamp", "order") and {"timestamp", "order"} & set(mapping)):
            mapping[own] = own
    if name == "events" and "timestamp" in mapping and "order" in mapping:
        if said and {"timestamp", "order"} <= set(said):
            raise InputError("data.columns.events: both timestamp and order are named. Keep timestamp, or order where there are no times.")
        del mapping["order"]
    for own in REQUIRED[name]:
        if own not in mapping:
            raise _missing(table, name, own, own, found)
    if name == "events" and not {"timestamp", "order"} & set(mapping):
        raise _missing(
            table,
            name,
            "timestamp",
            "timestamp",
            found,
            " (or order: a column with the position of each event, or order: random where there is neither)",
        )
    if not said and whole:
        mapping |= {column: column for column in found if column not in mapping.values()}
    return pd.DataFrame({own: frame[column] for own, column in mapping.items() if not (drawn and own == "order")})


def _inner(frame: pd.DataFrame, column: str) -> pd.Series | None:
    """A part of a column of objects, as in user.id."""
    head, *path = column.split(".")
    if not path or head not in frame:
        return None
    values = frame[head]
    for part in path:
        if not values.map(lambda cell, part=part: isinstance(cell, Mapping) and part in cell).any():
            return None
        values = values.map(lambda cell, part=part: cell.get(part) if isinstance(cell, Mapping) else None)
    return values.astype(object)


def _missing(table: RawTable, name: str, own: str, column: str, found: list[str], more: str = "") -> InputError:
    lower = {one.lower().replace("_", "").replace(" ", ""): one for one in reversed(found)}
    wanted = column.lower().replace("_", "").replace(" ", "")
    near = difflib.get_close_matches(wanted, lower, n=1, cutoff=0.5) if are_names(found) else []
    hint = f" Did you mean '{lower[near[0]]}'?" if near else ""
    if not near and any(one.replace(".", "", 1).isdigit() for one in found) and "1" not in found:
        hint = " If the first line is data and no header, set data.header: false; columns are then named 1, 2, and so on."
    return InputError(
        f"{name}: {table.place} has no column '{column}'. {told_columns(found)}{hint} "
        f"Say which it is in the config: data.columns.{name}.{own}: {scalar(lower[near[0]]) if near else '<your name>'}{more}"
    )


def _convert(
    chosen: pd.DataFrame, name: str, kinds: Mapping[str, str], data: DataConfig, place: str, told: dict[str, object]
) -> tuple[pd.DataFrame, dict[str, Mask]]:
    """Canonical columns (bad cells hold anything), and reason -> bad rows; `told` hears what is decided by all rows."""
    converted: dict[str, pd.Series] = {}
    faults: dict[str, Mask] = {}
    for label, column in chosen.items():
        own = str(label)
        if own not in ("timestamp", "order") and spelt_by_the_whole(column):
            told["unsure"] = True
        if own in REQUIRED[name]:
            converted[own], faults[f"{own} is missing"] = to_ids(column, told)
        elif name == "events" and own == "timestamp":
            converted[own], times = to_times(column, data.time_unit, f"{name}: timestamp of {place}", told)
            faults |= times
        elif name == "events" and own == "order":
            converted[own], faults["order is not a whole number"] = to_order(column)
        elif name == "events" and own == "event":
            converted[own], faults["event is missing"] = to_ids(column, told)
        elif kinds.get(own) == "image":
            converted[own] = column.astype(object)  # `nightloom.data.tables.pictures` reads them
        elif kinds.get(own) == "ignore" and holds_bytes(column):
            continue  # as text it would be unreadable and many times as long
        elif name == "events" and kinds.get(own) == "category":
            codes, unknown = to_ids(column, told)
            converted[own] = codes.mask(unknown)
        elif (name == "events" and own == "value") or kinds.get(own) == "number" or (not kinds.get(own) and is_number(column)):
            converted[own], faults[f"{own} is not a number"] = to_numbers(column)
        else:
            converted[own] = to_text(column, data.tags_separator)
    if name == "events" and "event" not in converted:
        converted["event"] = pd.Series(UNNAMED, index=chosen.index, dtype="str")
    return pd.DataFrame(converted), faults


def _rejects(table: RawTable, bad: Mask, faults: Mapping[str, Mask]) -> pd.DataFrame:
    positions = np.flatnonzero(bad)
    rows = table.frame.iloc[positions]
    reasons = ["; ".join(reason for reason, mask in faults.items() if mask[position]) for position in positions]
    content = {
        "file": table.files(positions),
        "row": rows.index.to_numpy(),
        "raw": [_json(record) for record in rows.to_dict(orient="records")],
        "reason": reasons,
    }
    return pd.DataFrame(content, columns=list(UNREADABLE_COLUMNS))


def _json(record: Mapping[Any, Any]) -> str:
    return json.dumps(
        {str(key): None if _is_missing(value) else value for key, value in record.items()}, ensure_ascii=False, default=_words
    )


def _words(value: object) -> str:
    return f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)
