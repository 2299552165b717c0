"""Columns of any type into canonical ones: ids, text, numbers and times. What cannot be converted is told apart from what is missing."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nightloom.core.errors import InputError

Mask = NDArray[np.bool_]

MISSING_WORDS = ("nan", "na", "n/a", "null", "none", "<na>", "nat", "\\n", "#n/a", "(null)")
"""In a column of numbers or times these words, in any case, mean that the value is missing."""
MISSING_IDS = ("nan", "NaN", "<NA>", "NA", "N/A", "NULL", "null", "None", "NaT", "\\N", "#N/A", "(null)")
"""How programs write a missing id."""
NAMES_TOO = ("nan", "NaN", "NA", "NULL", "null", "None")
"""Of these, words that may be an id where all ids are words: Namibia's code, a bread, a surname."""
WORDS = r"[^\W\d_]+"
BLANKS = " \t\r\n\v\f\u00a0\u200b\u2060\ufeff"
"""What stands around an id and is no part of it, invisible marks included."""

PLAUSIBLE = {unit: (10**8 * scale, 41 * 10**8 * scale) for unit, scale in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9))}
"""Numbers that mean a time between 1973 and 2099, by unit; the ranges do not overlap."""
EXACT = 2**53
"""Up to here floating-point numbers hold every whole number."""
LATEST_MS = 253_402_300_799_000
"""The end of the year 9999."""
TICKS = (6.276e17, 6.63e17)
"""Ticks of 100 ns since the year 1, from 1990 to 2101."""
FILETIME = (1.2e17, 1.6e17)
"""Ticks of 100 ns since 1601, from 1981 to 2108."""
FORMS = ("other", "s", "ms", "us", "ns", "date", "none")
"""Forms of a time: a number without a known unit, a unit, a date in words, no time at all."""
MAJORITY = 0.9
"""Share of rows that must agree on a unit of time."""

NOT_A_TIME = "timestamp is not a time (write 2024-01-31T12:00:00Z, or a number since 1970)"
OTHER_UNIT = "timestamp in another unit than most rows"


def to_text(column: pd.Series, separator: str = "|") -> pd.Series:
    """As str, missing stays missing; whole floats lose their ".0" and lists are joined."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_float_dtype(column.dtype):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        known = ~np.isnan(numbers)
        whole = known & (np.abs(numbers) < EXACT) & (np.where(known, numbers, 0.5) % 1 == 0)
        text = pd.Series(numbers, index=column.index).astype("str")
        text[whole] = numbers[whole].astype(np.int64).astype(str)
        return text.where(known).astype("str")
    if column.dtype == object:
        column = column.map(lambda cell: _cell_text(cell, separator), na_action=None)
    return column.astype("str")


def spelt_by_the_whole(column: pd.Series) -> bool:
    """Whether how a cell is spelt as text depends on the others: pandas drops hours, or fractions, where all are zero."""
    kind = column.cat.categories.dtype if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
    return pd.api.types.is_datetime64_dtype(kind) or pd.api.types.is_timedelta64_dtype(kind)


def listed(column: pd.Series, separator: str = "|") -> pd.Series:
    """A text column whose cells are lists or objects in JSON or in Python's spelling, as `to_text` writes lists; others unchanged."""
    if not isinstance(column.dtype, pd.StringDtype):
        return column
    known = column.dropna().str.strip()
    if known.empty or not (known.str.startswith(("[", "{")) & known.str.endswith(("]", "}"))).all():
        return column
    parsed = column.map(_parsed, na_action="ignore")
    return column if parsed.map(lambda cell: isinstance(cell, str)).any() else parsed.map(lambda cell: _cell_text(cell, separator))


def to_ids(column: pd.Series, told: dict[str, object] | None = None) -> tuple[pd.Series, Mask]:
    """Ids in one spelling, whatever carried them, as str; and where they are missing or blank.

    Each cell is spelt by itself, so that an id is the same in every file and table: without blanks around it, "12.0" as 12 (programs
    write so where another id is missing), bytes as their text, and é always as one sign. "007" stays.
    A word such as NA is missing, except in a column whose ids are all words and where it is no more frequent than they are. `told` hears
    as "unsure" that a part of the column can not tell this for the whole.
    """
    ids = to_text(column).str.strip(BLANKS)
    if pd.api.types.is_integer_dtype(column.dtype):
        return ids, np.asarray(ids.isna(), dtype=bool)
    if (dotted := _holds(ids, ".")).any():
        ids[dotted] = ids[dotted].str.replace(r"^(-?\d+)\.0*$", r"\1", regex=True)
    if (foreign := ~_ascii(ids)).any():
        ids[foreign] = ids[foreign].str.normalize("NFC")
    missing = np.array(ids.isna() | (ids == "") | ids.isin(MISSING_IDS), dtype=bool)
    names = ids.isin(NAMES_TOO).to_numpy(dtype=bool, na_value=False)
    if told is not None and names.any() and missing.all():
        told["unsure"] = True
    if names.any() and (~missing).any():
        counts = ids[~missing].value_counts()
        if counts.index.str.fullmatch(WORDS).all():
            if told is not None:
                told["unsure"] = True
            known = ids[names].value_counts()
            missing &= ~ids.isin(known.index[known <= counts.iloc[0]]).to_numpy(dtype=bool, na_value=False)
    return ids, missing


def inexact_ids(column: pd.Series) -> Mask:
    """Ids that have lost digits: floating-point numbers from 2**53 on, and numbers written as 1.23E+15."""
    if pd.api.types.is_integer_dtype(column.dtype):
        return np.zeros(len(column), dtype=bool)
    if pd.api.types.is_float_dtype(column.dtype):
        return np.asarray((column.abs() >= EXACT).fillna(False), dtype=bool)
    text = to_text(column).str.strip(BLANKS)
    lost = np.zeros(len(column), dtype=bool)
    if (marked := _holds(text, "+")).any():
        lost[marked] = text[marked].str.fullmatch(r"-?\d(\.\d+)?[eE]\+\d+")
    if (marked := _holds(text, ".")).any():
        marked[marked] = text[marked].str.fullmatch(r"-?\d{16,}\.0*")
        lost[marked] = [abs(int(cell.split(".")[0])) >= EXACT for cell in text[marked]]
    return lost


def binary_ids(column: pd.Series) -> Mask:
    """Ids that are bytes and no text."""
    if column.dtype != object:
        return np.zeros(len(column), dtype=bool)
    return np.fromiter((isinstance(cell, BYTES) and _bytes_text(cell) is None for cell in column), dtype=bool, count=len(column))


def decoded(column: pd.Series) -> pd.Series:
    """A column of bytes that are all text, as text; any other column as it is."""
    if column.dtype != object:
        return column
    known = column.dropna()
    if known.empty or not known.map(lambda cell: isinstance(cell, BYTES)).all():
        return column
    text = known.map(_bytes_text)
    return column if text.isna().any() else text.reindex(column.index).astype("str")


def _ascii(text: pd.Series) -> Mask:
    return pc.fill_null(pc.string_is_ascii(pa.array(text, from_pandas=True)), True).to_numpy(zero_copy_only=False).copy()


def _holds(text: pd.Series, sign: str) -> Mask:
    """Cells of text that hold a sign, bool [cells]; missing ones do not."""
    return text.str.contains(sign, regex=False).to_numpy(dtype=bool, na_value=False).copy()


def to_numbers(column: pd.Series) -> tuple[pd.Series, Mask]:
    """Numbers as float64, missing as NaN, and where something stands that is not a finite number."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        said = np.asarray(column.notna(), dtype=bool)
    else:
        text = to_text(column).str.strip()
        numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        said = np.array(text.notna() & (text != ""), dtype=bool)
        blank = said & np.isnan(numbers)
        said[blank] = ~text[blank].str.lower().isin(MISSING_WORDS)
    bad = said & ~np.isfinite(numbers)
    return pd.Series(np.where(np.isfinite(numbers), numbers, np.nan), index=column.index), bad


def to_order(column: pd.Series) -> tuple[pd.Series, Mask]:
    """Positions in a sequence as int64 (0 where bad), and where they are missing or not whole."""
    numbers, _ = to_numbers(column)
    bad = np.asarray(numbers.isna() | (numbers % 1 != 0) | (numbers.abs() >= EXACT), dtype=bool)
    return numbers.mask(bad, 0).astype(np.int64), bad


def to_times(column: pd.Series, unit: str, where: str, told: dict[str, object] | None = None) -> tuple[pd.Series, dict[str, Mask]]:
    """Times from datetimes, ISO 8601 text or numbers since 1970; without a zone they are UTC.

    Each number's size tells its unit (see `PLAUSIBLE`), so that rows in another unit than most are found.

    Args:
        column: the raw column.
        unit: s, ms, us or ns for numbers, or auto to infer it.
        where: table and column, for messages.
        told: hears as "times" in which form the column is read.

    Returns:
        datetime64[ms, UTC] (NaT where bad), and reason -> rows that have no time for that reason.

    Raises:
        InputError: no unit or form holds for 90 % of the rows, and `unit` does not settle it.
    """
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        times = pd.to_datetime(column, utc=True).dt.as_unit("ms")
        return times, {"timestamp is missing": np.asarray(times.isna(), dtype=bool)}

    numbers, not_numbers = to_numbers(column)
    missing = np.asarray(numbers.isna(), dtype=bool) & ~not_numbers
    forms = np.full(len(column), FORMS.index("other"), dtype=np.int8)
    for name, (low, high) in PLAUSIBLE.items():
        forms[np.asarray((numbers >= low) & (numbers < high), dtype=bool)] = FORMS.index(name)
    dates = pd.Series(pd.NaT, index=column.index, dtype="datetime64[ms, UTC]")
    if not_numbers.any():
        text = column[not_numbers].astype("str").str.strip().str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True)
        dates[not_numbers] = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce").dt.as_unit("ms")
        forms[not_numbers] = np.where(dates[not_numbers].isna(), FORMS.index("none"), FORMS.index("date"))
    none = forms == FORMS.index("none")

    form, accepted = _form(forms[~missing & ~none], column, unit, where)
    if told is not None:
        told["times"] = (form, *accepted)
    bad = {
        "timestamp is missing": missing,
        NOT_A_TIME: none,
        OTHER_UNIT: ~missing & ~none & ~np.isin(forms, [FORMS.index(name) for name in accepted]),
    }
    if form == "date":
        return dates.mask(bad[OTHER_UNIT]), bad
    per_ms = {"s": 0.001, "ms": 1, "us": 1000, "ns": 1_000_000}[form]
    bad[OTHER_UNIT] |= np.asarray(numbers.abs() / per_ms > LATEST_MS, dtype=bool)
    lost = missing | bad[NOT_A_TIME] | bad[OTHER_UNIT]
    since = np.zeros(len(column), dtype=np.int64)
    exact = numbers[~lost]
    if (exact.abs() >= EXACT).any():  # from the column itself, since float64 does not hold nanoseconds
        exact = pd.to_numeric(column[~lost] if pd.api.types.is_numeric_dtype(column.dtype) else to_text(column[~lost]).str.strip())
    since[~lost] = (exact * 1000).round() if form == "s" else exact // per_ms
    return pd.Series(since.astype("datetime64[ms]"), index=column.index).dt.tz_localize("UTC").mask(lost), bad


def _form(forms: NDArray[np.int8], column: pd.Series, unit: str, where: str) -> tuple[str, list[str]]:
    """The unit (or "date") in which a column is written, and the forms of numbers that are read so."""
    if len(forms) == 0:
        return "date", []
    counts = np.bincount(forms, minlength=len(FORMS))
    shares = {name: float(count / len(forms)) for name, count in sorted(zip(FORMS, counts, strict=True)) if count}
    if unit == "auto" and (told := _other_clock(column, shares)):
        raise InputError(f"{where}: numbers such as {column.dropna().iloc[0]} are {told}")
    if unit != "auto" and shares.get(unit, 0) + shares.get("other", 0) >= MAJORITY:
        return unit, [unit, "other"]
    most = max(shares, key=lambda name: shares[name])
    if shares[most] >= MAJORITY and most != "other":
        return most if unit == "auto" or most == "date" else unit, [most]
    example = column.dropna().iloc[0]
    if most == "other" and shares[most] >= MAJORITY:
        raise InputError(
            f"{where}: numbers such as {example} are no times between 1973 and 2099 in s, ms, us or ns since 1970. "
            "Set data.time_unit, write dates as 2024-01-31T12:00:00Z, or map `order:` instead of `timestamp:`."
        )
    found = ", ".join(f"{share:.0%} {_NAMES[name]}" for name, share in shares.items())
    raise InputError(
        f"{where}: {len(forms):,} rows mix units of time ({found}), for example {example}; none is in {MAJORITY:.0%} of the rows, "
        "so none can be taken for meant. Write all rows in one unit."
    )


def _other_clock(column: pd.Series, shares: Mapping[str, float]) -> str:
    """What numbers are that look like a time since 1970 and are another; empty where they are none."""
    if max(shares.get("ns", 0), shares.get("ms", 0)) < MAJORITY:
        return ""
    numbers = to_numbers(column)[0]
    if shares.get("ns", 0) >= MAJORITY and numbers.between(*TICKS).mean() >= MAJORITY:
        return (
            "ticks of 100 ns since the year 1 (.NET), which are not read. Write (ticks - 621355968000000000) / 10000000, the seconds "
            "since 1970; or set data.time_unit: ns if they are of 1990."
        )
    if shares.get("ns", 0) >= MAJORITY and numbers.between(*FILETIME).mean() >= MAJORITY:
        return (
            "ticks of 100 ns since 1601 (Windows), which are not read. Write (ticks - 116444736000000000) / 10000000, the seconds "
            "since 1970; or set data.time_unit: ns if they are of 1974."
        )
    if shares.get("ms", 0) >= MAJORITY and numbers.between(190_001_010_000, 209_912_312_359).mean() >= MAJORITY:
        digits = numbers.dropna().astype("int64").astype("str")
        if pd.to_datetime(digits, format="%Y%m%d%H%M", errors="coerce").notna().mean() >= MAJORITY:
            return (
                "dates in digits (YYYYMMDDHHMM), which are not read. Write 2024-01-31T12:00; or set data.time_unit: ms if they are of 1976."
            )
    return ""


_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds", "date": "dates", "other": "in no known unit"}


BYTES = (bytes, bytearray, memoryview)
TITLES = ("name", "title", "label", "value", "text", "id", "key")
"""Of an object, the part that names it, the likeliest first."""


def _cell_text(cell: object, separator: str) -> object:
    if isinstance(cell, (list, tuple, np.ndarray)):
        parts = (_cell_text(part, separator) for part in cell)
        return separator.join(str(part) for part in parts if part is not None)
    if isinstance(cell, dict):
        named = next((cell[key] for key in TITLES if cell.get(key) is not None), None)
        return _cell_text(named if named is not None else list(cell.values()), separator)
    if isinstance(cell, BYTES):
        return _bytes_text(cell)
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < EXACT:
        return str(int(cell))
    if isinstance(cell, Decimal) and cell.is_finite():
        return format(cell, "f")
    return None if pd.isna(cell) else str(cell)  # type: ignore[call-overload]


def _bytes_text(cell: object) -> str | None:
    try:
        text = bytes(cell).decode("utf-8")  # type: ignore[call-overload]
    except UnicodeDecodeError:
        return None
    return text if text.replace("\n", " ").replace("\t", " ").replace("\r", " ").isprintable() else None


def _parsed(cell: str) -> object:
    try:
        return json.loads(cell)
    except ValueError:
        try:
            return ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return cell
