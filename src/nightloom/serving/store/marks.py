"""Whom the marks in a store stand for: people who were forgotten, by keyed hashes of their ids. Nobody is read from one without the key.

A machine that shares a store gets the marks of others, and knows by them its own rows of the same people.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from nightloom.core.privacy_key import MARK, forgotten_mark, hashes_in, privacy_key

IS_MARK = f"user_id >= '{MARK}' AND user_id < '{MARK[:-1]};'"
"""SQL that is true of marks; `;` comes after `:`."""


class Marks:
    """The marks of one key.

    Args:
        path: of the store's file, which lies in a folder of the mlruns folder, whose key it is.
    """

    def __init__(self, path: Path) -> None:
        self._root = path.resolve().parents[1]
        self._key: bytes | None = None

    @property
    def key(self) -> bytes:
        """The key, read when it is first needed."""
        if self._key is None:
            self._key = privacy_key(self._root)
        return self._key

    def of(self, user: str) -> str:
        """The mark of an id."""
        return forgotten_mark(self.key, user)

    def check(self, marks: Iterable[str]) -> None:
        """Refuse marks that another key made.

        Raises:
            InputError: names the key.
        """
        hashes_in(marks, self.key, "people who were forgotten on another machine")

    def among(self, users: Iterable[str]) -> Mapping[str, str]:
        """Mark -> id of some people."""
        return {self.of(user): user for user in users}

    def received(self, connection: sqlite3.Connection, user: str) -> int | None:
        """Until when rows of a person do not count, by the person's mark in a file; None where there is no such mark."""
        if connection.execute(f"SELECT 1 FROM forgotten WHERE {IS_MARK} LIMIT 1").fetchone() is None:
            return None
        row = connection.execute("SELECT received FROM forgotten WHERE user_id = ?", (self.of(user),)).fetchone()
        return None if row is None else int(row[0])
