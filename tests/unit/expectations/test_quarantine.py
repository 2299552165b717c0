"""Nothing is lost on the way to the quarantine, and a domain's rule is said once."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.engine import Engine, gx, gxe
from expectations.rules import RowRule
from nightloom.data.tables.quarantine import CSV_ROWS, Breach, separate, shown, write_quarantine

CELLS = st.one_of(st.none(), st.text(max_size=5))


@st.composite
def broken_tables(draw: st.DrawFn) -> tuple[pd.DataFrame, list[Breach]]:
    rows = draw(st.integers(0, 12))
    cells = draw(st.lists(CELLS, min_size=rows, max_size=rows))
    numbers = draw(st.lists(st.floats(width=32), min_size=rows, max_size=rows))
    index = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    table = pd.DataFrame({"id": pd.Series(cells, dtype="str"), "value": pd.Series(numbers, dtype=float)}).set_index(
        pd.Index(index, dtype=int)
    )
    masks = st.lists(st.booleans(), min_size=rows, max_size=rows).map(lambda mask: np.array(mask, dtype=bool))
    pairs = draw(st.lists(st.tuples(st.sampled_from(["id", "value"]), masks), max_size=3))
    return table, [Breach(column, f"rule {n}", mask) for n, (column, mask) in enumerate(pairs)]


@given(broken_tables())
@settings(max_examples=60, deadline=None)
def test_good_and_bad_rows_are_the_table(case: tuple[pd.DataFrame, list[Breach]]) -> None:
    table, breaches = case
    good, bad = separate(table, breaches)
    any_broken = np.logical_or.reduce([np.zeros(len(table), dtype=bool), *(breach.rows for breach in breaches)])
    pd.testing.assert_frame_equal(good, table[~any_broken].reset_index(drop=True))
    pd.testing.assert_frame_equal(bad.drop(columns="reason"), table[any_broken].reset_index(drop=True))
    expected = [
        "; ".join(f"{b.column}: {b.rule} ({shown(table[b.column].iloc[row])})" for b in breaches if b.rows[row])
        for row in np.flatnonzero(any_broken)
    ]
    assert bad["reason"].tolist() == expected


def test_a_large_quarantine_is_written_as_parquet_alone(tmp_path: Path) -> None:
    bad = pd.DataFrame({"item_id": ["a"] * (CSV_ROWS + 1), "reason": ["why"] * (CSV_ROWS + 1)})
    file, count = write_quarantine(tmp_path, "items", bad, None)
    assert (file, count) == (tmp_path / "items.parquet", CSV_ROWS + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["items.parquet"]


def test_a_table_that_no_rule_could_judge_has_an_empty_quarantine(tmp_path: Path) -> None:
    file, count = write_quarantine(tmp_path, "items", None, None)
    assert count == 0
    assert pd.read_csv(file).columns.tolist() == ["reason"]


def test_values_as_people_read_them() -> None:
    assert shown("a") == "'a'"
    assert shown(float("nan")) == shown(None) == shown(pd.NaT) == "missing"
    assert shown(["x", "y"]) == "['x', 'y']"
    assert shown("z" * 200).endswith("z…")


def test_a_rule_is_said_in_one_way() -> None:
    for both_or_neither in ({}, {"breaks": lambda table: table["a"] > 1, "expectation": gxe.ExpectColumnValuesToNotBeNull(column="a")}):
        with pytest.raises(ValueError, match="give either `breaks` or `expectation`"):
            RowRule("a", "bad", **both_or_neither)


def test_the_rows_found_are_those_that_great_expectations_counts(tmp_path: Path) -> None:
    """Also for kinds of expectation that the base contract does not use, so that a domain may."""
    table = pd.DataFrame({"a": [1.0, 2.0, None, 5.0, 5.0, -3.0], "b": pd.Series(["x", "yy", None, "", "x1", "zzz"], dtype="str")})
    rules = [
        gxe.ExpectColumnValuesToNotBeNull(column="a"),
        gxe.ExpectColumnValuesToBeNull(column="b"),
        gxe.ExpectColumnValuesToBeUnique(column="a"),
        gxe.ExpectColumnValuesToBeBetween(column="a", min_value=0, max_value=5, strict_max=True),
        gxe.ExpectColumnValuesToBeInSet(column="b", value_set=["x", "yy"]),
        gxe.ExpectColumnValuesToNotBeInSet(column="b", value_set=["x"]),
        gxe.ExpectColumnValueLengthsToBeBetween(column="b", min_value=1, max_value=2),
        gxe.ExpectColumnValuesToMatchRegex(column="b", regex="^[a-z]+$"),
    ]
    found = [[2], [0, 1, 3, 4, 5], [3, 4], [3, 4, 5], [3, 4, 5], [0], [3, 5], [3, 4]]
    engine = Engine(tmp_path)
    results = engine.validate(table, gx.ExpectationSuite(name="many", expectations=rules))
    for mask, result, rows in zip(engine.failing(table, rules), results, found, strict=True):
        assert np.flatnonzero(mask).tolist() == rows
        assert result.result["unexpected_count"] == mask.sum()
