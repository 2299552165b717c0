"""Online Retail: two years of invoice lines become purchases and returns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from nightloom.data.sources.sets import retail
from nightloom.data.sources.sets.files import Content
from tests.unit.data.conftest import RealSet

FIRST = [
    ("489434", "85048", "15CM  GLASS BALL ", 12, "2009-12-01 07:45:00", 6.95, 13085.0, "United Kingdom"),
    ("489434", "79323p", "PINK LIGHTS", 12, "2009-12-01 07:45:00", 6.75, 13085.0, "United Kingdom"),
    ("489435", "POST", "POSTAGE", 1, "2009-12-01 08:00:00", 18.0, 13085.0, "United Kingdom"),
    ("489436", "85048", None, 1, "2009-12-01 09:00:00", 9.0, None, "United Kingdom"),
    ("C489437", "85048", "15CM GLASS BALL", -2, "2010-12-01 09:00:00", 6.95, 13085.0, "France"),
]
SECOND = [
    (489436, "85048", "15CM GLASS BALL", 1, "2010-12-01 09:00:00", 6.95, 0.0, "France"),
    (489438, "85048", "GLASS BALL, 15 CM", 6, "2010-12-10 09:33:00", 5.95, 17850.0, "United Kingdom"),
    (489439, "79323P", "PINK LIGHTS", 1, "2010-12-10 09:33:00", 0.0, 17850.0, "United Kingdom"),
    (489440, "85048", "15CM GLASS BALL", 6, "2010-12-11 09:33:00", 5.95, 0.0, "United Kingdom"),
]


@pytest.fixture
def content(tmp_path: Path) -> Content:
    names = ["StockCode", "Description", "Quantity", "InvoiceDate"]
    first = pd.DataFrame(FIRST, columns=["Invoice", *names, "Price", "Customer ID", "Country"])
    second = pd.DataFrame(SECOND, columns=["InvoiceNo", *names, "UnitPrice", "CustomerID", "Country"])
    first.to_parquet(tmp_path / "1.parquet")
    second.to_parquet(tmp_path / "2.parquet")
    return retail.read(tmp_path / "1.parquet", tmp_path / "2.parquet")


def test_lines_become_purchases_and_returns_in_their_order(content: Content) -> None:
    events = content.tables["events"]
    assert events[["user_id", "item_id", "event", "value", "price", "country"]].to_numpy().tolist() == [
        ["13085", "85048", "purchase", 12, 6.95, "United Kingdom"],
        ["13085", "79323P", "purchase", 12, 6.75, "United Kingdom"],
        ["13085", "85048", "return", -2, 6.95, "France"],
        ["17850", "85048", "purchase", 6, 5.95, "United Kingdom"],
        ["17850", "79323P", "purchase", 1, 0.0, "United Kingdom"],
    ]
    assert str(events["timestamp"].iloc[0]) == "2009-12-01 07:45:00"


def test_every_line_is_kept_or_counted(content: Content) -> None:
    assert content.left_out == {retail.TWICE: 1, retail.GUEST: 2, retail.FEE: 1}
    assert len(content.tables["events"]) + sum(content.left_out.values()) == len(FIRST) + len(SECOND)


def test_goods_have_their_usual_description_and_price_and_customers_their_country(content: Content) -> None:
    items, users = content.tables["items"].set_index("item_id"), content.tables["users"].set_index("user_id")
    assert items.loc["85048"].tolist() == ["15CM GLASS BALL", pytest.approx(6.45)]
    assert items.loc["79323P"].tolist() == ["PINK LIGHTS", 6.75]
    assert users["country"].to_dict() == {"13085": "United Kingdom", "17850": "United Kingdom"}


def test_the_real_set(real_set: RealSet) -> None:
    fetched, tables = real_set("shop")
    assert fetched.left_out == {retail.TWICE: 22_130, retail.GUEST: 233_660, retail.FEE: 3_291}
    assert len(tables.events) + sum(fetched.left_out.values()) == 525_461 + 531_282
    assert tables.events["event"].value_counts().to_dict() == {"purchase": 788_267, "return": 9_395}
    assert tables.events["timestamp"].is_monotonic_increasing
    assert ((tables.events["value"] < 0) == (tables.events["event"] == "return")).all()
    assert tables.items is not None
    assert tables.users is not None
    assert (len(tables.items), len(tables.users)) == (4_635, 5_876)
    assert set(tables.events["item_id"]) == set(tables.items["item_id"])
    assert tables.items["title"].notna().all()
    assert tables.features == {"title": "text", "price": "number"}
    assert {"price", "country"} <= set(tables.events)
