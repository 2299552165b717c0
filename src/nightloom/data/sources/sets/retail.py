"""Online Retail (UCI 502 and 352): two years of a British gift shop, invoice line by invoice line.

Source: Daqing Chen, Sai Laing Sain and Kun Guo, Data mining for the online retail industry, Journal of Database Marketing and
Customer Strategy Management 19(3), 2012. Times are those of the shop, to the minute and without a zone; they are taken as UTC.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nightloom.data.sources.sets.files import Content, FileSet

LICENCE = "Online Retail II by Daqing Chen, UCI Machine Learning Repository, https://doi.org/10.24432/C5CG6D: CC BY 4.0."
PUBLISHER = (
    "github.com/viniciusfrantz/cohort_project at d35cfe0 (data/online_retail.parquet, as online_retail_2009-2010.parquet) and "
    "github.com/Yussufgit/retail-customer-analytics at f91dc95 (data/online_retail.parquet, as online_retail_2010-2011.parquet)"
)
COLUMNS = ("invoice", "item_id", "title", "quantity", "timestamp", "price", "user_id", "country")
"""Our names of the columns, which both files have in this order under different names."""
NO_GOODS = frozenset(
    ["ADJUST", "ADJUST2", "AMAZONFEE", "B", "BANK CHARGES", "C2", "CRUK", "D", "DOT", "M", "POST", "S", "TEST001", "TEST002"]
)
"""Stock codes of postage, carriage, fees, discounts, samples, tests and entries by hand."""
TWICE = "days that the file before has too"
GUEST = "guests: lines without a customer"
FEE = "no goods: postage, fees, discounts, samples, tests"


def read(first: Path, second: Path) -> Content:
    """Tables from the files of the two years, in the order of their lines.

    A line with a negative quantity is an event `return`, every other a `purchase`; `value` is the quantity. An item's text is its
    most frequent description and its price the median of what was paid. The first file knows returns and the second
    does not, so the days that both have are taken from the first.
    """
    earlier, later = _lines(first), _lines(second)
    new = later["timestamp"] > earlier["timestamp"].max()
    lines = pd.concat([earlier, later[new]], ignore_index=True)
    guest = lines["user_id"].isna()
    goods = ~lines["item_id"].isin(NO_GOODS)
    left_out = {TWICE: int((~new).sum()), GUEST: int(guest.sum()), FEE: int((~guest & ~goods).sum())}
    kept = lines[~guest & goods]
    events = kept[["user_id", "item_id", "timestamp", "price", "country"]].assign(
        event=kept["quantity"].lt(0).map({True: "return", False: "purchase"}), value=kept["quantity"]
    )
    items = pd.DataFrame({"title": _most_frequent(kept, "item_id", "title"), "price": _paid(kept)})
    users = pd.DataFrame({"country": _most_frequent(kept, "user_id", "country")})
    return Content({"events": events, "items": items.reset_index(), "users": users.reset_index()}, left_out)


def _lines(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path).set_axis(list(COLUMNS), axis=1)
    customer = frame["user_id"].where(frame["user_id"] != 0)  # the second file writes guests as customer 0
    return frame.assign(
        user_id=customer.astype("Int64").astype("string").astype("str"),
        item_id=frame["item_id"].astype("str").str.strip().str.upper(),
        title=frame["title"].str.split().str.join(" "),
        timestamp=pd.to_datetime(frame["timestamp"]),
    )


def _most_frequent(lines: pd.DataFrame, key: str, column: str) -> pd.Series:
    """By key, the most frequent value of a column; of values as frequent, the one seen first."""
    counts = lines.groupby([key, column], sort=False).size().reset_index(name="count")
    best = counts.sort_values("count", ascending=False, kind="stable").drop_duplicates(key)
    return best.set_index(key)[column].reindex(pd.Index(lines[key].unique(), name=key))


def _paid(lines: pd.DataFrame) -> pd.Series:
    """By item, the median price of its purchases; a price of 0 is a gift or a correction."""
    bought = lines[(lines["price"] > 0) & (lines["quantity"] > 0)]
    return bought.groupby("item_id")["price"].median()


SHOP = FileSet(
    "Online Retail",
    "online-retail",
    {
        "online_retail_2009-2010.parquet": "e92bcbbce1b7a1041ad79462879d4774bf050c7b8fee9f4eef89f09fb6330664",
        "online_retail_2010-2011.parquet": "ad09db649d5ee696a47d87d042b4c364c0d386a6873f195e34bda01411d2349d",
    },
    PUBLISHER,
    LICENCE,
    read,
)
