"""Quarantine: bad rows are set aside, each with its reason, and never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.data.tables.blocks import SpeltWriter
from nightloom.data.tables.coded import spelt

CSV_ROWS = 10_000
"""Quarantines up to this size are also written as CSV, so that a person can open them."""

HELD_ROWS = 1 << 20
"""Bad rows that are held in memory; where there are more they are written as they come."""

LONGEST_VALUE = 80


@dataclass(frozen=True)
class Breach:
    """The rows that break one rule.

    Attributes:
        column: column that the rule is about.
        rule: the rule in words.
        rows: bool [rows of the table], true where the rule is broken.
    """

    column: str
    rule: str
    rows: NDArray[np.bool_]


def separate(table: pd.DataFrame, breaches: Sequence[Breach]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part the good rows from the bad ones; both keep their order and, together, are the table. Text of the bad ones is spelt out.

    Returns:
        The good rows, and the bad rows with `reason`: "column: rule (value)", several joined by "; ".
    """
    bad = np.zeros(len(table), dtype=bool)
    for breach in breaches:
        bad |= breach.rows
    aside = spelt(table[bad].reset_index(drop=True))
    reasons = np.full(len(aside), "", dtype=object)
    for breach in breaches:
        rows = breach.rows[bad]
        told = np.array([f"{breach.column}: {breach.rule} ({shown(value)})" for value in aside[breach.column][rows]], dtype=object)
        first = reasons[rows] == ""
        reasons[rows] = np.where(first, told, reasons[rows] + "; " + told) if len(told) else told
    aside["reason"] = pd.Series(reasons, dtype="str")
    return table[~bad].reset_index(drop=True), aside


def write_quarantine(folder: Path, name: str, bad: pd.DataFrame | None, rejected: pd.DataFrame | None) -> tuple[Path, int]:
    """Write the bad rows of a table as Parquet and, when they are few, as CSV.

    Args:
        folder: the quarantine folder; made when missing.
        name: name of the table.
        bad: rows with their `reason`, from `separate`; None when no row could be judged.
        rejected: rows that could not even be read (`row`, `raw`, `reason`), or None.

    Returns:
        The file that a person should open, and the number of rows in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [part for part in (bad, rejected) if part is not None]
    filled = [part for part in parts if len(part)]  # an empty part would only add its columns
    aside = pd.concat(filled or parts or [pd.DataFrame({"reason": pd.Series(dtype="str")})], ignore_index=True)
    path = folder / f"{name}.parquet"
    aside.to_parquet(path, index=False)
    if len(aside) <= CSV_ROWS:
        path = path.with_suffix(".csv")
        aside.to_csv(path, index=False)
    return path, len(aside)


class Quarantine:
    """Takes the bad rows of a table, some at a time, and writes them as `write_quarantine` does when the block ends well.

    Args:
        folder: the quarantine folder; made when missing.
        name: name of the table.
        rejected: rows that could not even be read, or None.

    Attributes:
        file: the file that a person should open, once all are written.
        rows: in it.
    """

    def __init__(self, folder: Path, name: str, rejected: pd.DataFrame | None) -> None:
        self.file: Path | None = None
        self.rows = 0
        self._folder, self._name, self._rejected = folder, name, rejected
        self._waiting: list[pd.DataFrame] = []
        self._writer: SpeltWriter | None = None
        self._types = pd.Series(dtype=object)

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._writer is None:
            filled = [part for part in self._waiting if len(part)] or self._waiting[:1]
            bad = pd.concat(filled, ignore_index=True) if filled else None
            self.file, self.rows = write_quarantine(self._folder, self._name, bad, self._rejected)
        elif self._writer is not None:
            if self._rejected is not None:
                self._write(self._rejected)
            self._writer.__exit__(kind, *_)
            self.rows = self._writer.rows

    def add(self, bad: pd.DataFrame) -> None:
        """More bad rows with their `reason`; many are written as they come."""
        if self._writer is None and sum(map(len, self._waiting)) < HELD_ROWS:
            self._waiting.append(bad)
            return
        if self._writer is None:
            some = [part.head(1) for part in (*self._waiting, self._rejected) if part is not None and len(part)]
            self._types = pd.concat(some, ignore_index=True).dtypes
            self._folder.mkdir(parents=True, exist_ok=True)
            self.file = self._folder / f"{self._name}.parquet"
            self._writer = SpeltWriter(self.file, pd.concat(some, ignore_index=True).iloc[:0])
            for part in self._waiting:
                self._write(part)
            self._waiting = []
        self._write(bad)

    def _write(self, part: pd.DataFrame) -> None:
        if self._writer is not None:
            self._writer.add(part.reindex(columns=self._types.index).astype(self._types.to_dict()))


def shown(value: object) -> str:
    """A value as it is shown: short, and "missing" where there is none."""
    if isinstance(value, (list, tuple, np.ndarray)):
        text = repr(list(value))
    elif pd.isna(value):  # type: ignore[call-overload]  # any other cell is a scalar
        return "missing"
    else:
        text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
