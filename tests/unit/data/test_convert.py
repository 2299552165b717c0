from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nightloom.core.errors import InputError
from nightloom.data.tables.convert import FILETIME, NOT_A_TIME, OTHER_UNIT, TICKS, to_ids, to_numbers, to_order, to_text, to_times

SCALE = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
MOMENT = datetime(2024, 1, 31, 12, 30, 15, 250_000, tzinfo=UTC)


def text(values: list[Any]) -> pd.Series:
    return pd.Series(values, dtype="str")


def times(column: pd.Series, unit: str = "auto") -> tuple[pd.Series, dict[str, list[int]]]:
    found, bad = to_times(column, unit, "events: timestamp")
    assert found.dtype == "datetime64[ms, UTC]"
    assert found.isna().tolist() == np.logical_or.reduce(list(bad.values())).tolist()
    return found, {reason: np.flatnonzero(rows).tolist() for reason, rows in bad.items() if rows.any()}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (text(["007", "12.0", " a ", "é"]), ["007", "12.0", " a ", "é"]),
        (pd.Series([12.0, 3.5, 2.0**60]), ["12", "3.5", "1.152921504606847e+18"]),
        (pd.Series([12, 2**62], dtype="Int64"), ["12", str(2**62)]),
        (pd.Series([1, 2**64 - 1], dtype="UInt64"), ["1", str(2**64 - 1)]),
        (pd.Series([True, False]), ["True", "False"]),
        (pd.Series(["b", "a"], dtype="category"), ["b", "a"]),
        (pd.Series([["x", "y"], np.array(["z"], dtype=object)]), ["x|y", "z"]),
        (pd.Series([Decimal("1.50"), date(2024, 1, 31)], dtype=object), ["1.50", "2024-01-31"]),
    ],
)
def test_text_is_kept_as_it_is_written(column: pd.Series, expected: list[str]) -> None:
    assert to_text(column).tolist() == expected


@pytest.mark.parametrize(
    "column",
    [
        text(["nan", None]),
        pd.Series([1.5, np.nan]),
        pd.Series([3, None], dtype="Int64"),
        pd.Series([["a"], None], dtype=object),
        pd.Series(["a", None], dtype="category"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series(["a", pd.NA], dtype="string"),
    ],
)
def test_missing_text_stays_missing(column: pd.Series) -> None:
    found = to_text(column)
    assert found.dtype == "str"
    assert found.isna().tolist() == [False, True]


def test_ids_that_are_missing_or_blank() -> None:
    ids, bad = to_ids(text(["a", None, "", "  ", "nan", "Nan", "0"]))
    assert bad.tolist() == [False, True, True, True, True, False, False]
    assert ids[~bad].tolist() == ["a", "Nan", "0"]
    assert to_ids(pd.Series([12.0, np.nan]))[0].tolist()[0] == "12"


def test_numbers_tell_missing_from_wrong() -> None:
    numbers, bad = to_numbers(text(["4", " 2.5 ", None, "", "NaN", "n/a", "five", "inf", "1e3"]))
    assert bad.tolist() == [False] * 6 + [True, True, False]
    assert numbers.tolist()[:2] == [4.0, 2.5]
    assert numbers.isna().tolist() == [False, False] + [True] * 6 + [False]


@pytest.mark.parametrize(
    "column", [pd.Series([4, None], dtype="Int64"), pd.Series([Decimal("4"), None], dtype=object), pd.Series([4, np.nan])]
)
def test_numbers_of_any_type(column: pd.Series) -> None:
    numbers, bad = to_numbers(column)
    assert numbers.tolist()[0] == 4.0
    assert np.isnan(numbers.tolist()[1])
    assert not bad.any()


def test_order_wants_whole_numbers() -> None:
    order, bad = to_order(text(["3", "2.0", "1.5", None, "x"]))
    assert order.tolist()[:2] == [3, 2]
    assert order.dtype == np.int64
    assert bad.tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    "written",
    [
        "2024-01-31T12:30:15.250Z",
        "2024-01-31 12:30:15.250",
        "2024-01-31T14:30:15.250+02:00",
        "1706704215.250",
        "1706704215250",
        "1706704215250999",
        "1706704215250000000",
    ],
)
def test_forms_of_one_time(written: str) -> None:
    found, bad = times(text([written, None]))
    assert found[0] == MOMENT
    assert bad == {"timestamp is missing": [1]}


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_datetime([MOMENT])),
        pd.Series(pd.to_datetime([MOMENT])).dt.tz_convert("Asia/Tokyo"),
        pd.Series(pd.to_datetime([MOMENT])).dt.tz_localize(None).astype("datetime64[ns]"),
        pd.Series([MOMENT], dtype=object),
    ],
)
def test_datetimes_with_and_without_zone(column: pd.Series) -> None:
    assert times(column)[0][0] == MOMENT


def test_days_are_times() -> None:
    assert times(pd.Series([date(2024, 1, 31)], dtype=object))[0][0] == datetime(2024, 1, 31, tzinfo=UTC)


@given(st.lists(st.integers(10**8 * 1000, 41 * 10**8 * 1000 - 1), min_size=1, max_size=20), st.sampled_from(sorted(SCALE)))
def test_the_unit_is_inferred(milliseconds: list[int], unit: str) -> None:
    written = pd.Series([moment * SCALE[unit] // 1000 for moment in milliseconds])
    other = {"ns": (TICKS, FILETIME), "ms": ((190_001_010_000, 209_912_312_359),)}.get(unit, ())  # refused: ticks, dates in digits
    assume(not any(written.between(*span).any() for span in other))
    found, bad = times(written)
    assert not bad
    since = found.to_numpy(dtype="datetime64[ms]").astype(np.int64)
    assert since.tolist() == [moment // 1000 * 1000 if unit == "s" else moment for moment in milliseconds]


@given(st.sampled_from(sorted(SCALE)), st.sampled_from(sorted(SCALE)), st.booleans(), st.booleans())
def test_rows_in_another_unit_are_found(most: str, few: str, as_text: bool, said: bool) -> None:
    column = pd.Series([1_700_000_000 * SCALE[most]] * 19 + [1_700_000_000 * SCALE[few]])
    _, bad = times(column.astype("str") if as_text else column, most if said else "auto")
    assert bad == ({} if most == few else {OTHER_UNIT: [19]})


def test_dates_among_numbers_and_numbers_among_dates() -> None:
    assert times(text(["1700000000"] * 19 + ["2024-01-31"]))[1] == {OTHER_UNIT: [19]}
    found, bad = times(text(["2024-01-31"] * 19 + ["1700000000", "yesterday"]))
    assert bad == {OTHER_UNIT: [19], NOT_A_TIME: [20]}
    assert found[0] == datetime(2024, 1, 31, tzinfo=UTC)


def test_zero_among_times_is_not_1970() -> None:
    assert times(pd.Series([1_700_000_000] * 19 + [0]))[1] == {OTHER_UNIT: [19]}


@pytest.mark.parametrize("unit", ["auto", "s"])
def test_units_without_a_majority_are_refused(unit: str) -> None:
    with pytest.raises(InputError, match=r"4 rows mix units of time \(50% milliseconds, 50% seconds\), for example 1700000000;"):
        times(text(["1700000000", "1700000001000"] * 2), unit)


def test_small_numbers_need_a_unit() -> None:
    with pytest.raises(InputError, match=r"such as 17 are no times.*data.time_unit.*order:"):
        times(pd.Series([17, 18]))
    assert times(pd.Series([17, 18]), "s")[0][0] == datetime(1970, 1, 1, 0, 0, 17, tzinfo=UTC)


def test_a_said_unit_may_span_the_years_before_1973() -> None:
    assert times(pd.Series([10**7, 2 * 10**8, 10**9]), "s")[1] == {}
    assert times(pd.Series([10**7] * 19 + [10**15]), "s")[1] == {OTHER_UNIT: [19]}


def test_a_number_beyond_all_years_is_no_time() -> None:
    assert times(pd.Series([10**7] * 19 + [10**13]), "s")[1] == {OTHER_UNIT: [19]}
    assert times(pd.Series([10**7] * 19 + [10**13]), "ms")[1] == {}
    assert times(text(["1700000000"] * 19 + ["9" * 30]), "s")[1] == {OTHER_UNIT: [19]}


def test_nothing_but_missing_times() -> None:
    assert times(text([None, "nan"]))[1] == {"timestamp is missing": [0, 1]}
    assert times(pd.Series(pd.to_datetime([None, None])))[1] == {"timestamp is missing": [0, 1]}
