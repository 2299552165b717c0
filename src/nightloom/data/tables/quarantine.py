"""Quarantine: bad rows are set aside, each with its reason, and never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.data.tables.coded import spelt

CSV_ROWS = 10_000
"""Quarantines up to this size are also written as CSV, so that a person can open them."""

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


def shown(value: object) -> str:
    """A value as it is shown: short, and "missing" where there is none."""
    if isinstance(value, (list, tuple, np.ndarray)):
        text = repr(list(value))
    elif pd.isna(value):  # type: ignore[call-overload]  # any other cell is a scalar
        return "missing"
    else:
        text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
