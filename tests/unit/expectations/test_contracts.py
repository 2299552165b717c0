"""Every rule of the base contract against a table that breaks it, limits that stop the night, and tables of other shapes."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expectations.run import check, read_checked
from nightloom.config import RunConfig, config_from_dict
from nightloom.core.errors import ContractBroken, InputError
from nightloom.data.tables.schema import Tables

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)
EVENTS, ITEMS, USERS = 400, 20, 25


def text(values: object) -> pd.Series:
    return pd.Series(values, dtype="str")


def times(days_ago: np.ndarray) -> pd.Series:
    return pd.Series(pd.Timestamp(NOW) - pd.to_timedelta(days_ago, unit="D")).astype("datetime64[ms, UTC]")


def make(*, people: bool = False) -> Tables:
    rng = np.random.default_rng(3)
    events = pd.DataFrame(
        {
            "user_id": text([f"u{code}" for code in rng.integers(0, USERS, EVENTS)]),
            "item_id": text([f"i{code}" for code in rng.integers(0, ITEMS, EVENTS)]),
            "timestamp": times(np.linspace(300, 2, EVENTS)),
            "event": text(["rating"] * EVENTS),
            "value": rng.integers(1, 6, EVENTS).astype(float),
        }
    )
    items = pd.DataFrame({"item_id": text([f"i{code}" for code in range(ITEMS)]), "title": text(["A title"] * ITEMS)})
    if not people:
        return Tables(events, items, features={"title": "text"})
    users = pd.DataFrame({"user_id": text([f"u{code}" for code in range(USERS)]), "age": np.arange(USERS)})
    links = pd.DataFrame({"user_id": text(["u0", "u1", "u2"]), "other_id": text(["u1", "u2", "u3"])})
    return Tables(events, items, users, links, features={"title": "text"})


def config(**validation: object) -> RunConfig:
    base = {"max_bad_share": 0.5, "value_range": [1, 5], "allowed_events": ["rating", "view"]}
    return config_from_dict({"name": "x", "data": {"events": "events.csv"}, "validation": base | validation})


def aside(folder: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(folder / "quarantine" / f"{table}.parquet")


def broken(tables: Tables, run: RunConfig, folder: Path, last: dict[str, int] | None = None) -> str:
    with pytest.raises(ContractBroken) as caught:
        check(tables, run, folder, last, NOW)
    assert caught.value.exit_code == 2
    assert (folder / "data_docs" / "index.html").exists()
    assert (folder / "checks.json").exists()
    return str(caught.value)


def test_good_tables_pass_whole(tmp_path: Path) -> None:
    tables = make(people=True)
    figures = check(tables, config(), tmp_path, {"events": EVENTS, "items": ITEMS}, NOW)
    assert figures["rows"] == {"events": EVENTS, "items": ITEMS, "users": USERS, "links": 3}
    assert set(figures["quarantined"].values()) == {0}
    assert figures["warnings"] == []
    assert figures["positive_share"] == 1
    assert datetime.fromisoformat(figures["newest"]) == NOW - timedelta(days=2)
    json.dumps(figures)
    again = read_checked(tmp_path)
    for name, table in again.present().items():
        pd.testing.assert_frame_equal(table, tables.present()[name])
    assert again.features == tables.features
    assert all(line["passed"] for line in json.loads((tmp_path / "checks.json").read_text()))
    assert "events, rows" in (tmp_path / "data_docs" / "index.html").read_text()


def test_markup_in_a_table_is_text_in_data_docs(tmp_path: Path) -> None:
    tables = make()
    script, picture = "<script>document.title='run'</script>", "<img src=x onerror=\"document.title='run'\">"
    tables.events.loc[3, "event"], tables.events.loc[4, "event"] = script, picture
    tables.events.loc[5, "item_id"] = script
    check(tables, config(), tmp_path, None, NOW)
    pages = "".join(path.read_text() for path in (tmp_path / "data_docs").rglob("*.html"))
    assert script not in pages
    assert "<img src=x" not in pages
    assert "&lt;script&gt;document.title='run'&lt;/script&gt;" in pages
    assert "&amp;lt;" not in pages


def test_each_broken_row_of_events_is_put_aside_with_its_reason(tmp_path: Path) -> None:
    tables = make()
    events = tables.events
    reasons = {
        0: ("user_id", None, "user_id: missing (missing)"),
        1: ("user_id", " \t", r"user_id: blank (' \t')"),
        2: ("item_id", None, "item_id: missing (missing)"),
        3: ("item_id", "", "item_id: blank (''); item_id: not in items ('')"),
        4: ("item_id", "i999", "item_id: not in items ('i999')"),
        5: ("timestamp", pd.NaT, "timestamp: missing (missing)"),
        6: ("timestamp", pd.Timestamp(NOW + timedelta(hours=2)), "timestamp: in the future (2026-11-24 04:00:00+00:00)"),
        7: ("timestamp", pd.Timestamp("1970-01-21", tz="UTC"), "timestamp: before 1990, perhaps in another unit"),
        8: ("event", None, "event: missing (missing)"),
        9: ("event", "rated", "event: not one of rating, view ('rated')"),
        10: ("value", 6.0, "value: outside 1 to 5 (6.0)"),
        11: ("value", -np.inf, "value: outside 1 to 5 (-inf)"),
    }
    for row, (column, value, _) in reasons.items():
        events.loc[row, column] = value
    events.loc[12, "value"] = np.nan  # a missing value is allowed
    events.loc[13, "timestamp"] = pd.Timestamp(NOW + timedelta(minutes=30))  # clocks differ
    figures = check(tables, config(max_bad_share=len(reasons) / EVENTS), tmp_path, None, NOW)  # at the limit is within it
    bad = aside(tmp_path, "events")
    assert figures["quarantined"]["events"] == len(bad) == len(reasons)
    for (_, _, reason), told in zip(reasons.values(), bad["reason"], strict=True):
        assert told.startswith(reason)
    assert list(bad.columns) == [*events.columns, "reason"]
    pd.testing.assert_frame_equal(read_checked(tmp_path).events, events.drop(index=list(reasons)).reset_index(drop=True))
    assert len(pd.read_csv(tmp_path / "quarantine" / "events.csv")) == len(bad)
    # What Great Expectations counted is what was set aside.
    checks = json.loads((tmp_path / "checks.json").read_text())
    assert sum(line["bad"] for line in checks if line["table"] == "events") == len(reasons) + 1  # row 3 breaks two rules
    assert figures["reasons"]["events"]["item_id: not in items"] == 2


def test_broken_rows_of_the_other_tables(tmp_path: Path) -> None:
    tables = make(people=True)
    assert tables.items is not None
    assert tables.users is not None
    tables.items = pd.concat([tables.items, pd.DataFrame({"item_id": ["i3", None], "title": ["Another", "None"]})], ignore_index=True)
    tables.users = pd.concat([tables.users, tables.users.iloc[[4]]], ignore_index=True)
    tables.links = pd.DataFrame({"user_id": text(["u0", "u1", "u2", "stranger"]), "other_id": text(["u1", "u1", "nobody", None])})
    figures = check(tables, config(max_bad_share=1), tmp_path, None, NOW)
    assert aside(tmp_path, "items")["reason"].tolist() == ["item_id: appears more than once ('i3')", "item_id: missing (missing)"]
    good = read_checked(tmp_path)
    assert good.items is not None
    assert good.items.loc[good.items["item_id"] == "i3", "title"].tolist() == ["A title"]  # the first stays
    assert aside(tmp_path, "users")["reason"].tolist() == ["user_id: appears more than once ('u4')"]
    assert aside(tmp_path, "links")["reason"].tolist() == [
        "other_id: links a user to itself ('u1')",
        "other_id: not in users or events ('nobody')",
        "other_id: missing (missing); user_id: not in users or events ('stranger')",
    ]
    assert figures["rows"]["links"] == 1


def test_rows_that_could_not_be_read_are_counted_and_kept(tmp_path: Path) -> None:
    tables = make()
    tables.rejected = {"events": pd.DataFrame({"row": [7], "raw": ['{"user": "a"}'], "reason": ["timestamp is no time"]})}
    tables.events.loc[0, "value"] = 9
    figures = check(tables, config(), tmp_path, None, NOW)
    bad = aside(tmp_path, "events")
    assert bad["reason"].tolist() == ["value: outside 1 to 5 (9.0)", "timestamp is no time"]
    assert bad["raw"].iloc[1] == '{"user": "a"}'
    assert figures["quarantined"]["events"] == 2
    assert figures["bad_share"]["events"] == 2 / (EVENTS + 1)
    assert figures["reasons"]["events"]["timestamp is no time"] == 1


def test_too_many_bad_rows_stop_the_night_after_all_is_written(tmp_path: Path) -> None:
    tables = make()
    tables.events.loc[:9, "item_id"] = "i999"
    message = broken(tables, config(max_bad_share=0.01), tmp_path)
    for part in (
        "events: 10 of 400 rows (2.50%) are bad, the limit is 1.00% (validation.max_bad_share)",
        "events.item_id: not in items: 10 rows (2.50%), for example 'i999'",
        str(tmp_path / "quarantine" / "events.csv"),
        "nothing was trained",
    ):
        assert part in message
    assert len(aside(tmp_path, "events")) == 10


def test_a_whole_table_in_a_wrong_unit(tmp_path: Path) -> None:
    tables = make()
    tables.events["timestamp"] = times(np.full(EVENTS, 20000.0))
    message = broken(tables, config(), tmp_path)
    assert "events.timestamp: before 1990, perhaps in another unit (data.time_unit): 400 rows (100.00%)" in message
    assert "expected at least 100 good events, found 0" in message


def test_table_limits(tmp_path: Path) -> None:
    tables = make()
    run = config(min_events=1000, max_age_days=1, max_shrink=0.1)
    run = run.model_copy(update={"prepare": run.prepare.model_copy(update={"positive_min_value": 9.0})})
    message = broken(tables, run, tmp_path, {"events": 500, "items": 20})
    assert "events: expected at least 1,000 good events, found 400; collect more events, or lower validation.min_events" in message
    assert "events.timestamp: expected newest event at most 1 days old, found 2026-11-22 02:00:00+00:00" in message
    assert "validation.max_age_days" in message
    assert "events: expected at least 450 rows, 10% under the last night's 500, found 400" in message
    assert "events: expected at least 1.0% of events positive (label balance), found 0" in message
    assert "items:" not in message


def test_a_future_event_does_not_make_old_data_fresh(tmp_path: Path) -> None:
    tables = make()
    tables.events.loc[0, "timestamp"] = pd.Timestamp("2100-01-01", tz="UTC")
    assert "newest event at most 1 days old, found 2026-11-22" in broken(tables, config(max_age_days=1), tmp_path)


def test_an_empty_table(tmp_path: Path) -> None:
    tables = make()
    tables.events = tables.events.iloc[:0]
    assert "expected at least 100 good events, found 0" in broken(tables, config(), tmp_path)


def test_missing_columns_stop_before_any_row_is_judged(tmp_path: Path) -> None:
    tables = make()
    tables.rejected = {"items": pd.DataFrame({"row": [1], "raw": ["{}"], "reason": ["item_id is missing"]})}
    tables.events = tables.events[["item_id", "value"]]
    message = broken(tables, config(), tmp_path)
    for column in ("user_id", "timestamp", "event"):
        assert f"events.{column}: must be there, but it is missing; columns there are item_id, value. " in message
    assert "Map the right column in data.columns.events" in message
    assert aside(tmp_path, "items")["raw"].tolist() == ["{}"]
    assert not (tmp_path / "events.parquet").exists()


def test_columns_of_a_wrong_type(tmp_path: Path) -> None:
    tables = make()
    tables.events = tables.events.assign(item_id=np.arange(EVENTS), timestamp=np.arange(EVENTS), value=text(["3"] * EVENTS))
    message = broken(tables, config(), tmp_path)
    assert "events.item_id: must hold text, but it holds integer" in message
    assert "events.timestamp: must hold time, but it holds integer" in message
    assert "events.value: must hold number or integer, but it holds text" in message


def test_order_in_place_of_time_and_no_other_table(tmp_path: Path) -> None:
    tables = Tables(make().events.drop(columns=["timestamp", "value"]).assign(order=np.arange(EVENTS)))
    figures = check(tables, config(max_age_days=1), tmp_path, None, NOW)
    assert (figures["oldest"], figures["newest"]) == (0, EVENTS - 1)
    assert read_checked(tmp_path).present().keys() == {"events"}


def test_a_users_table_without_rows(tmp_path: Path) -> None:
    tables = make(people=True)
    assert tables.users is not None
    tables.users = tables.users.iloc[:0]
    figures = check(tables, config(), tmp_path, None, NOW)
    assert figures["rows"]["users"] == 0
    assert figures["bad_share"]["users"] == 0


def test_missing_text_and_users_with_one_event_are_told_and_no_more(tmp_path: Path) -> None:
    tables = make()
    assert tables.items is not None
    tables.items.loc[0, "title"] = None
    tables.items.loc[1, "title"] = None
    tables.items.loc[2, "title"] = " "
    tables.events.loc[5, "user_id"] = "once"
    figures = check(tables, config(suite="movies"), tmp_path, None, NOW)
    assert figures["quarantined"]["items"] == 0
    assert any("items.title: expected a title for 95% of films, found 2 of 20 rows against it" in line for line in figures["warnings"])
    assert any("items: expected text for every item, found 85.00%" in line for line in figures["warnings"])
    assert figures["users_with_one_event"] == 1


def test_infinite_values_are_bad_without_a_range_and_an_index_may_repeat(tmp_path: Path) -> None:
    tables = make()
    tables.events.loc[7, "value"] = np.inf
    tables = replace(tables, events=tables.events.set_index(np.arange(EVENTS) % 3))
    check(tables, config(value_range=None), tmp_path, None, NOW)
    assert aside(tmp_path, "events")["reason"].tolist() == ["value: infinite (inf)"]


def test_a_suite_that_is_not_there(tmp_path: Path) -> None:
    known = "ads, base, movies, news, reviews, shop, social"
    with pytest.raises(InputError, match=rf"validation\.suite: expectations/ has no 'nowhere'\. There are: {known}"):
        check(make(), config(suite="nowhere"), tmp_path, None, NOW)


def test_each_table_may_have_its_own_limit_of_bad_rows(tmp_path: Path) -> None:
    tables = make()
    tables.items.loc[0, "item_id"] = None  # type: ignore[union-attr]
    share = 1 / len(tables.items)  # type: ignore[arg-type]
    assert "items: 1 of" in broken(tables, config(max_bad_share={"events": 1}), tmp_path)  # the default limit of the items
    check(tables, config(max_bad_share={"items": share, "events": 0.5}), tmp_path, None, NOW)


def test_warnings_are_still_seen_after_a_check(tmp_path: Path) -> None:
    code = (
        "import sys, warnings\n"
        "from pathlib import Path\n"
        "from tests.unit.expectations.test_contracts import NOW, check, config, make\n"
        "check(make(), config(), Path(sys.argv[1]), None, NOW)\n"
        "warnings.warn('an old name', FutureWarning)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning: an old name" in done.stderr
