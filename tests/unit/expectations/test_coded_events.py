"""A table of events whose text is coded is judged as one that is spelt out, and column by column as a whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
import pytest
from pandas.core.strings.accessor import StringMethods

from expectations.engine import Engine
from expectations.run import check, read_checked
from nightloom.data.tables.coded import coded, is_coded, spelt
from nightloom.data.tables.schema import Tables
from tests.unit.expectations.test_contracts import NOW, config, make

CHANGES = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(?:Z|\+00:00)?|\d{8}T\d{6}\.\d+Z|\d{10}\.\d+"
)
"""What differs from run to run: ids and times."""


def broken() -> pd.DataFrame:
    events = make().events.assign(channel=pd.Series(["app", "web"] * 200, dtype="str"))
    events.loc[3, "user_id"], events.loc[4, "user_id"], events.loc[5, "item_id"] = None, " \t", "i999"
    events.loc[6, "event"], events.loc[7, "event"], events.loc[8, "value"] = "rated", None, 77.0
    return events


def fingerprint(table: pd.DataFrame) -> str:
    """Two sums of the rows' hashes, as 16 hexadecimal digits each."""
    hashes = [int(one) for one in pd.util.hash_pandas_object(table, index=True)]
    return "".join(f"{sum(found) % 2**64:016x}" for found in (hashes, [one * (one >> 7 | 1) for one in hashes]))


def pages(folder: Path) -> dict[str, str]:
    docs = folder / "data_docs"
    found = [path for path in docs.rglob("*.html") if path.name != "index.html"]
    return {CHANGES.sub("", path.relative_to(docs).as_posix()): CHANGES.sub("", path.read_text()) for path in found}


def test_coded_events_give_the_same_rows_reasons_and_pages(tmp_path: Path) -> None:
    found = {}
    for name, events in {"spelt": broken(), "coded": coded(broken())}.items():
        (tmp_path / name).mkdir()
        tables = Tables(events, make().items, features={"title": "text"})
        found[name] = check(tables, config(), tmp_path / name, None, NOW)
    assert found["spelt"] == found["coded"]
    assert found["coded"]["quarantined"]["events"] == 6
    for place in ("events.parquet", "items.parquet", "checks.json", "tables.json", "quarantine/events.parquet", "quarantine/events.csv"):
        assert (tmp_path / "spelt" / place).read_bytes() == (tmp_path / "coded" / place).read_bytes()
    assert pages(tmp_path / "spelt") == pages(tmp_path / "coded")
    read = read_checked(tmp_path / "coded", in_blocks=True)
    assert is_coded(read.events["channel"])
    pd.testing.assert_frame_equal(spelt(read.events.whole()), read_checked(tmp_path / "coded").events)  # type: ignore[operator]


def test_a_suite_is_judged_column_by_column_as_great_expectations_judges_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expectations.engine.HASHED_ROWS", 150)
    table = broken()

    def wanted() -> list[gxe.Expectation]:
        return [
            gxe.ExpectColumnValuesToNotBeNull(column="user_id"),
            gxe.ExpectTableRowCountToBeBetween(min_value=1000),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="value", column_B="low"),
            gxe.ExpectColumnValuesToMatchRegex(column="user_id", regex=r"\S"),
            gxe.ExpectColumnValuesToNotMatchRegex(column="event", regex="^rated$"),
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["user_id", "item_id"]),
            gxe.ExpectColumnToExist(column="nowhere"),
            gxe.ExpectColumnValuesToBeInSet(column="event", value_set=["rating"]),
            gxe.ExpectColumnUniqueValueCountToBeBetween(column="item_id", min_value=2),
            gxe.ExpectColumnMaxToBeBetween(column="timestamp", max_value=NOW),
        ]

    table["low"] = 3.0
    context = gx.get_context(mode="ephemeral")
    batch = context.data_sources.add_pandas("whole").add_dataframe_asset("whole").add_batch_definition_whole_dataframe("whole")
    suite = context.suites.add(gx.ExpectationSuite(name="mixed", expectations=wanted()))
    whole = batch.get_batch(batch_parameters={"dataframe": table}).validate(suite, result_format="SUMMARY").results
    by_id = {result.expectation_config.id: result for result in whole}
    whole = [by_id[expectation.id] for expectation in suite.expectations]
    for number, frame in enumerate((table, coded(table))):
        engine = Engine(tmp_path / str(number))
        results = engine.validate(frame, gx.ExpectationSuite(name="mixed", expectations=wanted()))
        engine.write_docs()
        assert [result.success for result in results] == [result.success for result in whole]
        assert [result.result for result in results] == [result.result for result in whole]
        assert sum(result.success for result in results) not in (0, len(results))
        (page,) = (tmp_path / str(number) / "validations").rglob("*.html")
        assert fingerprint(table) in page.read_text()
    changed = table.copy()
    changed.loc[0, "value"] += 1.0
    assert len({fingerprint(one) for one in (table, changed, table.iloc[::-1].reset_index(drop=True))}) == 3


def test_text_is_asked_once_of_each_distinct_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    contains = StringMethods.contains  # type: ignore[attr-defined]

    def counting(self: Any, *given: Any, **named: Any) -> pd.Series:
        asked.append(len(self._orig))
        return contains(self, *given, **named)

    monkeypatch.setattr(StringMethods, "contains", counting)
    held = coded(pd.DataFrame({"word": pd.Series(["a", " ", "b"] * 1000, dtype="str")}))
    suite = gx.ExpectationSuite(name="words", expectations=[gxe.ExpectColumnValuesToMatchRegex(column="word", regex=r"\S")])
    (result,) = Engine(tmp_path).validate(held, suite)
    assert set(asked) == {3}
    assert result.result["unexpected_count"] == 1000
