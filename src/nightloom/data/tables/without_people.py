"""Canonical tables without people who asked to be forgotten, and with pseudonyms in the place of ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from nightloom.config import DataConfig
from nightloom.core.pseudonyms import Pseudonyms
from nightloom.data.tables.blocks import Texts
from nightloom.data.tables.schema import Tables
from nightloom.runs.forgotten import Forgotten

NOT_KEPT = "(not kept, since data.pseudonyms is set)"
PEOPLE = {"events": ("user_id",), "users": ("user_id",), "links": ("user_id", "other_id")}
"""Table -> its columns with ids of people."""


class Asked:
    """A list of the forgotten that is asked about each id once, however often it comes: a keyed hash costs two microseconds.

    Args:
        listed: the list.
    """

    def __init__(self, listed: Forgotten) -> None:
        self._listed, self._known, self._gone = listed, Texts(), set[str]()

    def forgotten(self, ids: pd.Series) -> set[str]:
        """All of the list among these ids, and those before."""
        before = len(self._known)
        self._known.numbers(ids)
        self._gone |= self._listed.of(self._known.values[before:].to_pylist())
        return self._gone


class People:
    """What is done to rows of people: those of the forgotten are left out, and pseudonyms put in the place of ids.

    Args:
        listed: the forgotten.
        pseudonyms: None where ids stay.
        data: of its `columns` the names of the source.

    Attributes:
        left_out: events so far.
    """

    def __init__(self, listed: Forgotten, pseudonyms: Pseudonyms | None, data: DataConfig) -> None:
        self.left_out = 0
        self._listed, self._asked, self._pseudonyms = listed, Asked(listed), pseudonyms
        self._names = {str(table): named_by for table, named_by in data.columns.items()}

    def leave_out(self, tables: Tables) -> Tables:
        """The tables without the forgotten."""
        made, gone = without_people(tables, self._listed, self._asked)
        self.left_out += gone
        return made

    def rename(self, tables: Tables) -> Tables:
        """The tables with pseudonyms, where these are used."""
        if self._pseudonyms is None:
            return tables
        return self.leave_out(
            with_pseudonyms(tables, self._pseudonyms, self._names)
        )  # of who asked the service the pseudonym alone is known


def without_people(tables: Tables, forgotten: Forgotten, asked: Asked | None = None) -> tuple[Tables, int]:
    """Leave rows of people on a list out of every table, and out of the rows that could not be read.

    Args:
        tables: of the config's own sources; what a service stored after the person was forgotten is not among them.
        forgotten: the list.
        asked: what it was asked before, where tables come in pieces.

    Returns:
        The tables, and how many events were left out.
    """
    if not forgotten:
        return tables, 0
    made, out, asked = dict[str, pd.DataFrame](), 0, asked or Asked(forgotten)
    for name, columns in PEOPLE.items():
        table: pd.DataFrame | None = getattr(tables, name)
        if table is None:
            continue
        theirs = np.logical_or.reduce([table[column].isin(asked.forgotten(table[column])).to_numpy() for column in columns])
        out += int(theirs.sum()) if name == "events" else 0
        made[name] = table[~theirs].reset_index(drop=True) if theirs.any() else table
    rejected = dict[str, pd.DataFrame]()
    for name, aside in tables.rejected.items():
        raws = aside["raw"].astype(str).tolist() if name in PEOPLE else []
        kept = aside[[not one for one in forgotten.in_raw(raws)]] if name in PEOPLE else aside
        if len(kept):
            rejected[name] = kept.reset_index(drop=True)
    return _with(tables, made, rejected), out


def _with(tables: Tables, made: Mapping[str, pd.DataFrame], rejected: Mapping[str, pd.DataFrame]) -> Tables:
    """The tables with others in the place of those that hold people."""
    people = {name: made.get(name, getattr(tables, name)) for name in PEOPLE}
    return replace(tables, events=people["events"], users=people["users"], links=people["links"], rejected=dict(rejected))


def with_pseudonyms(tables: Tables, pseudonyms: Pseudonyms, names: Mapping[str, Mapping[str, str]]) -> Tables:
    """Put pseudonyms in the place of people's ids, also in the rows that could not be read.

    Of those only what is a JSON object keeps its text: in a torn line nobody can say which part is the id.

    Args:
        tables: canonical tables.
        pseudonyms: of one key.
        names: table -> our column name -> that of the source, as in `data.columns`.
    """
    made = dict[str, pd.DataFrame]()
    for name, columns in PEOPLE.items():
        table: pd.DataFrame | None = getattr(tables, name)
        if table is not None:
            known = pseudonyms.of({one for column in columns for one in table[column].dropna().unique()})
            made[name] = table.assign(**{column: table[column].map(known).astype(table[column].dtype) for column in columns})
    rejected = dict(tables.rejected)
    for name in PEOPLE.keys() & rejected.keys():
        keys = {names.get(name, {}).get(column, column) for column in PEOPLE[name]}
        raw = rejected[name]["raw"].map(lambda text, keys=keys: _hidden(text, keys, pseudonyms))
        rejected[name] = rejected[name].assign(raw=raw.astype(rejected[name]["raw"].dtype))
    return _with(tables, made, rejected)


def _hidden(text: str, keys: set[str], pseudonyms: Pseudonyms) -> str:
    """The text of a row with pseudonyms."""
    try:
        content = json.loads(text)
    except (ValueError, TypeError):
        content = None
    if not isinstance(content, dict):
        return NOT_KEPT
    said = {name: pseudonyms(str(value)) if name in keys and value is not None else value for name, value in content.items()}
    return json.dumps(said, ensure_ascii=False)
