"""Each domain's own rules against a table that breaks them."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expectations.run import check
from nightloom.config import config_from_dict
from nightloom.core.errors import ContractBroken
from nightloom.data.tables.schema import Tables

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)
ROWS = 300


def make(event: str, value: float | None = None, **context: Any) -> Tables:
    """Good tables of one event: 30 users, 20 items with a title."""
    rows = np.arange(ROWS)
    events = pd.DataFrame(
        {
            "user_id": pd.Series([f"u{row % 30}" for row in rows], dtype="str"),
            "item_id": pd.Series([f"i{row % 20}" for row in rows], dtype="str"),
            "timestamp": pd.Series(pd.date_range("2026-01-01", periods=ROWS, freq="h", tz="UTC")).astype("datetime64[ms, UTC]"),
            "event": pd.Series([event] * ROWS, dtype="str"),
        }
    )
    if value is not None:
        events["value"] = value
    items = pd.DataFrame({"item_id": pd.Series([f"i{row}" for row in range(20)], dtype="str")})
    items["title"] = pd.Series(["A title"] * 20, dtype="str")
    return Tables(events.assign(**context), items, features={"title": "text"})


def checked(tables: Tables, suite: str, folder: Path, **sections: Any) -> tuple[dict[str, int], str]:
    """Rows of events set aside by reason, and all warnings."""
    content = {"name": "x", "data": {"events": "e.csv"}, "validation": {"suite": suite, "max_bad_share": 0.5}}
    folder.mkdir(exist_ok=True)
    figures = check(tables, config_from_dict(content | sections), folder, None, NOW)
    return figures["reasons"]["events"], "\n".join(figures["warnings"])


def untitled(tables: Tables) -> Tables:
    assert tables.items is not None
    return dataclasses.replace(tables, items=tables.items.assign(title=tables.items["title"].where(tables.items.index > 1)))


def test_a_review_has_stars_and_they_differ(tmp_path: Path) -> None:
    tables = make("rating", 5.0)
    assert checked(tables, "reviews", tmp_path / "same")[1].startswith("events.value: expected more than one number of stars, found 1")
    tables.events.loc[:2, "value"] = [4.0, np.nan, np.nan]
    reasons, warnings = checked(untitled(tables), "reviews", tmp_path / "other")
    assert reasons == {"value: a rating without stars": 2}
    assert "a title for 95% of products" in warnings
    assert "number of stars" not in warnings


def test_quantities_of_a_shop_fit_their_event(tmp_path: Path) -> None:
    tables = make("purchase", 2.0, price=1.5, country="France")
    assert checked(tables, "shop", tmp_path / "good") == ({}, "")
    tables.events.loc[[0, 1, 2], "value"] = [-1.0, 0.0, np.nan]
    tables.events.loc[[3, 4], "event"] = "return"
    tables.events.loc[4, "value"] = -2.0
    tables.events.loc[5, "price"] = -0.5
    assert checked(tables, "shop", tmp_path / "bad")[0] == {
        "value: a purchase of no or a negative quantity": 2,
        "value: a return of no or a positive quantity": 1,
        "price: negative": 1,
    }


def test_a_shop_where_much_comes_back_and_goods_lack_titles_and_prices(tmp_path: Path) -> None:
    tables = untitled(make("purchase", 2.0))
    assert tables.items is not None
    tables = dataclasses.replace(tables, items=tables.items.assign(price=np.nan), features={"title": "text", "price": "number"})
    tables.events.loc[:99, ["event", "value"]] = ["return", -1.0]
    warnings = checked(tables, "shop", tmp_path)[1]
    assert "events.event: expected at most 20% returns, found 100 of 300 rows against it" in warnings
    assert "a title for 95% of goods" in warnings
    assert "a price for 95% of goods" in warnings


def test_a_title_is_not_clicked_and_passed_over_at_once(tmp_path: Path) -> None:
    tables = make("click")
    tables.events.loc[100:, "event"] = "impression"
    tables.events["item_id"] = ["i0"] * 100 + ["i19"] * 200
    assert checked(tables, "news", tmp_path / "good") == ({}, "")
    later = tables.events.loc[[0]].assign(event="impression", timestamp=tables.events["timestamp"].max())
    at_once = tables.events.loc[[1, 2]].assign(event="impression")
    rows = dataclasses.replace(tables, events=pd.concat([tables.events, later, at_once], ignore_index=True))
    reason = "event: an impression of what the same reader clicked"
    assert checked(rows, "news", tmp_path / "times")[0] == {reason: 2}
    placed = rows.events.drop(columns="timestamp").assign(order=np.arange(len(rows.events)))
    bad = untitled(dataclasses.replace(rows, events=placed))
    reasons, warnings = checked(bad, "news", tmp_path / "places")
    assert reasons == {reason: 3}
    assert "a title for 95% of news" in warnings


def test_people_do_not_follow_themselves_and_listens_are_counted(tmp_path: Path) -> None:
    tables = make("follow")
    assert tables.items is not None
    people = pd.DataFrame({"item_id": pd.Series([f"u{row}" for row in range(30)], dtype="str"), "name": "A name"})
    tables.events["item_id"] = [f"u{(row + 1) % 30}" for row in range(ROWS)]
    tables.events.loc[:4, "event"] = "self"
    tables.events.loc[:2, "item_id"] = tables.events["user_id"]
    tables.events.loc[5, "item_id"] = "u5"
    tables = dataclasses.replace(tables, items=people, features={"name": "text"})
    assert checked(tables, "social", tmp_path / "follow") == ({"item_id: another in an event `self`": 2, "item_id: follows himself": 1}, "")
    heard = make("listen", 3.0)
    assert heard.items is not None
    heard = dataclasses.replace(heard, items=heard.items.rename(columns={"title": "name"}), features={"name": "text"})
    assert checked(heard, "social", tmp_path / "good") == ({}, "")
    heard.events.loc[:2, "value"] = [0.0, -1.0, np.nan]
    heard.items.loc[:1, "name"] = None
    reasons, warnings = checked(heard, "social", tmp_path / "listen")
    assert reasons == {"value: a listen without a count above zero": 3}
    assert "a name for 95% of artists" in warnings


def test_no_link_is_said_twice(tmp_path: Path) -> None:
    links = pd.DataFrame({"user_id": ["u1", "u2", "u1", "u3"], "other_id": ["u2", "u1", "u2", "u3"]}, dtype="str")
    config = config_from_dict({"name": "x", "data": {"events": "e.csv"}, "validation": {"suite": "social", "max_bad_share": 0.5}})
    figures = check(dataclasses.replace(make("listen", 1.0), links=links), config, tmp_path, None, NOW)
    assert figures["reasons"]["links"] == {"other_id: links a user to itself": 1, "other_id: linked more than once": 1}


def test_an_advertising_log_holds_clicks_and_impressions(tmp_path: Path) -> None:
    tables = make("impression", clicks_before=1.0, site="x")
    tables.events.loc[:9, "event"] = "click"
    assert checked(tables, "ads", tmp_path / "good") == ({}, "")
    tables.events.loc[[20, 21], "clicks_before"] = [np.inf, np.nan]
    tables.events.loc[:199, "event"] = "click"
    reasons, warnings = checked(tables, "ads", tmp_path / "many")
    assert reasons == {"clicks_before: infinite": 1}
    assert "expected at most 50% clicks, found 199 of 299 rows against it" in warnings
    with pytest.raises(ContractBroken, match="clicks and impressions, both, found 1"):
        checked(make("click"), "ads", tmp_path / "clicks")
