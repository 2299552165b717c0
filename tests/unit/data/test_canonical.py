from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.core.event_names import UNNAMED
from nightloom.data.sources.raw import RawTable
from nightloom.data.tables.canonical import canonical
from nightloom.data.tables.features import infer
from nightloom.data.tables.schema import Tables


def made(tables: dict[str, dict[str, list[Any]]], **keys: Any) -> Tables:
    raw = {name: RawTable.of(pd.DataFrame(content), f"{name}.csv") for name, content in tables.items()}
    return canonical(raw, DataConfig(events="events.csv", **keys))


def events(**columns: list[Any]) -> dict[str, list[Any]]:
    length = len(next(iter(columns.values()))) if columns else 3
    base = {"user_id": ["u1", "u2", "007"], "item_id": ["i1", "i2", "i1"], "timestamp": ["1700000000", "1700000001", "1700000002"]}
    return {name: (values * length)[:length] for name, values in base.items()} | columns


def test_events_get_canonical_types() -> None:
    found = made({"events": events(value=["4", None, "3.5"], device=["a", "b", "c"])}).events
    assert found.dtypes.astype(str).to_dict() == {
        "user_id": "str",
        "item_id": "str",
        "timestamp": "datetime64[ms, UTC]",
        "value": "float64",
        "event": "str",
    }
    assert found["user_id"].tolist() == ["u1", "u2", "007"]
    assert found["event"].unique().tolist() == [UNNAMED]
    assert found["value"].isna().tolist() == [False, True, False]


def test_the_column_map_renames_and_keeps_context() -> None:
    raw = {"userId": ["a"], "movieId": [12.0], "when": ["2024-01-31"], "stars": [5], "kind": ["rating"], "device": ["tv"], "other": [1]}
    columns = {"user_id": "userId", "item_id": "movieId", "timestamp": "when", "value": "stars", "event": "kind", "device": "device"}
    found = made({"events": raw}, columns={"events": columns}).events
    assert set(found) == {"user_id", "item_id", "timestamp", "value", "event", "device"}
    assert found.loc[0, ["item_id", "event", "device"]].tolist() == ["12", "rating", "tv"]


def test_order_instead_of_timestamp() -> None:
    raw = {"user_id": ["a", "a", "b"], "item_id": ["x", "y", "x"], "position": ["1", "2", "1"], "timestamp": ["never"] * 3}
    found = made({"events": raw}, columns={"events": {"order": "position"}}).events
    assert "timestamp" not in found
    assert found["order"].tolist() == [1, 2, 1]


def test_timestamp_wins_over_a_column_that_happens_to_be_named_order() -> None:
    assert "order" not in made({"events": events(order=["A-1", "A-2", "A-3"])}).events


def test_rows_that_cannot_be_converted_are_put_aside_with_their_reasons() -> None:
    raw = events(
        user_id=["u1", None, "u3", " ", "nan"],
        timestamp=["1700000000", "1700000001", "soon", "1700000002", "1700000003"],
        value=["4", "x", "3", "3", "3"],
    )
    tables = made({"events": raw})
    assert tables.events["user_id"].tolist() == ["u1"]
    aside = tables.rejected["events"]
    assert aside["row"].tolist() == [2, 3, 4, 5]
    assert aside["file"].unique().tolist() == ["events.csv"]
    assert aside["reason"].iloc[0] == "user_id is missing; value is not a number"
    assert aside["reason"].iloc[1].startswith("timestamp is not a time (write 2024-")
    assert json.loads(aside["raw"].iloc[0]) == {"user_id": None, "item_id": "i2", "timestamp": "1700000001", "value": "x"}


def test_nothing_is_lost() -> None:
    raw = events(timestamp=["1700000000"] * 18 + ["1700000000000", "?"], value=[str(n) if n % 7 else "-" for n in range(20)])
    tables = made({"events": raw})
    assert len(tables.events) + len(tables.rejected["events"]) == 20


def test_rows_in_another_unit_of_time_are_put_aside() -> None:
    tables = made({"events": events(timestamp=["1700000000"] * 19 + ["1700000000000"])})
    assert tables.rejected["events"]["reason"].tolist() == ["timestamp in another unit than most rows"]


def test_mixed_units_without_a_majority_are_refused() -> None:
    with pytest.raises(InputError, match=r"events: timestamp of events.csv: 2 rows mix units"):
        made({"events": events(timestamp=["1700000000", "1700000000000"])})


@pytest.mark.parametrize("columns", [{"events": {"user_id": "user", "item_id": "movie"}}, {}])
def test_a_missing_column_names_what_is_there_and_the_remedy(columns: dict[str, dict[str, str]]) -> None:
    with pytest.raises(InputError) as caught:
        made({"events": {"userId": ["a"], "movie": ["x"], "timestamp": ["1700000000"]}}, columns=columns)
    message = str(caught.value)
    assert "events: events.csv has no column" in message
    assert "It has: userId, movie, timestamp" in message
    assert "Did you mean 'userId'?" in message
    assert "data.columns.events.user_id: userId" in message


def test_neither_timestamp_nor_order() -> None:
    with pytest.raises(InputError, match=r"no column 'timestamp'.*data.columns.events.timestamp: <your name> \(or order: a column with"):
        made({"events": {"user_id": ["a"], "item_id": ["x"]}})


def test_both_timestamp_and_order() -> None:
    with pytest.raises(InputError, match="both timestamp and order"):
        made({"events": events(n=[1])}, columns={"events": {"timestamp": "timestamp", "order": "n"}})


def test_no_row_that_can_be_read() -> None:
    with pytest.raises(InputError, match=r"none of 2 rows of events.csv can be read: timestamp is not a time.* \(2\).*data.columns.events"):
        made({"events": events(timestamp=["01/31/2024", "02/01/2024"])})


def films(count: int = 40) -> dict[str, list[Any]]:
    return {
        "item_id": [f"i{n}" for n in range(count)],
        "title": [f"Film number {n}" if n % 10 else None for n in range(count)],
        "genres": ["Drama|War" if n % 3 else "Comedy" for n in range(count)],
        "country": [("DE", "FR")[n % 2] for n in range(count)],
        "year": [str(1950 + n) for n in range(count)],
        "code": [f"00{n}" for n in range(count)],
        "poster": [f"https://example.org/{n}.jpg" for n in range(count)],
        "file": [f"pictures/{n}.png" for n in range(count)],
        "released": [f"2024-01-{n % 28 + 1:02}" for n in range(count)],
        "empty": [None] * count,
    }


def test_kinds_of_item_columns_are_inferred() -> None:
    tables = made({"events": events(), "items": films()})
    assert tables.features == {"title": "text", "genres": "tags", "country": "category", "year": "number", "code": "text"}
    assert tables.items is not None
    assert tables.items["year"].tolist()[:2] == [1950.0, 1951.0]
    assert tables.items["title"].isna().sum() == 4
    assert tables.items.columns.tolist() == list(films())


def test_said_kinds_win_over_inferred_ones() -> None:
    said = {"year": "category", "title": "ignore", "poster": "text"}
    tables = made({"events": events(), "items": films()}, features=said)
    assert tables.features["year"] == "category"
    assert tables.features["poster"] == "text"
    assert "title" not in tables.features
    assert tables.items is not None
    assert tables.items["year"].tolist()[0] == "1950"


def test_items_keep_only_mapped_columns_when_there_is_a_map() -> None:
    tables = made({"events": events(), "items": films()}, columns={"items": {"item_id": "item_id", "name": "title"}})
    assert tables.items is not None
    assert tables.items.columns.tolist() == ["item_id", "name"]


def test_text_that_says_nan_is_text() -> None:
    items = {"item_id": ["i1", "b", "c"], "title": ["nan", None, "A film"]}
    found = made({"events": events(), "items": items}, features={"title": "text"}).items
    assert found is not None
    assert found["title"].isna().tolist() == [False, True, False]
    assert found["title"].tolist()[0] == "nan"


def test_a_number_column_with_a_word_in_it() -> None:
    items = {"item_id": ["i1", "b", "c"], "price": ["1.5", "N/A", "cheap"]}
    tables = made({"events": events(), "items": items}, features={"price": "number"})
    assert tables.items is not None
    assert tables.items["item_id"].tolist() == ["i1", "b"]
    assert tables.rejected["items"]["reason"].tolist() == ["price is not a number"]


def test_features_of_columns_that_are_not_there() -> None:
    with pytest.raises(InputError, match=r"no column 'genre'; did you mean 'genres'"):
        made({"events": events(), "items": films()}, features={"genre": "tags"})
    with pytest.raises(InputError, match=r"Name it in data.items"):
        made({"events": events()}, features={"genre": "tags"})


def test_users_and_links() -> None:
    tables = made(
        {
            "events": events(),
            "users": {"user_id": ["u1", "u2"], "age": ["31", None], "zip": ["01234", "12345"]},
            "links": {"user_id": ["u1", "u2"], "friend": ["u2", None]},
        },
        columns={"links": {"other_id": "friend"}},
    )
    assert tables.users is not None
    assert tables.links is not None
    assert tables.users.dtypes.astype(str).to_dict() == {"user_id": "str", "age": "float64", "zip": "str"}
    assert tables.links.to_dict("list") == {"other_id": ["u2"], "user_id": ["u1"]}
    assert tables.rejected["links"]["reason"].tolist() == ["other_id is missing"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"The {n}th film, with {n + 60} stars, in colour" for n in range(60)], "text"),
        (["red,blue", "red", "blue,green"] * 20, "tags"),
        (["S", "M", "L"] * 20, "category"),
        (["Solaris", "Stalker", "Mirror"], "text"),
        ([1.5, 2, None] * 20, "number"),
        ([True, False] * 20, "category"),
        ([["a", "b"], ["a"], ["b"]] * 10, "tags"),
        (["/data/a.jpg", "./b/c", "C:\\x"] * 9, "ignore"),
        (["and/or", "either/or"] * 9, "category"),
        (["2024-01-31T10:00:00Z"] * 9, "ignore"),
    ],
)
def test_inference_by_values(values: list[Any], kind: str) -> None:
    assert infer(pd.Series(values), ",") == kind
