"""What was shown becomes rows: cleaned, in order, with fields that tell something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.config import PrepareConfig
from nightloom.core.errors import InputError
from nightloom.data.preparation.impressions import Impressions, hashed, impressions
from nightloom.data.tables.schema import Tables
from tests.made_clicks import log

RULES = PrepareConfig(positive_events=("click",), keep_repeats=True)


def tables() -> Tables:
    events = log().drop(columns="probability")
    stranger = [f"s{row}" for row in range(len(events))]
    items = pd.DataFrame({"item_id": [f"ad{one}" for one in range(12)], "size": ["big", "small"] * 6, "price": np.arange(12.0)})
    return Tables(events.assign(stranger=stranger, same="x"), items, features={"item_id": "ignore", "size": "category", "price": "number"})


def test_rows_are_in_order_with_all_that_is_known() -> None:
    given = tables()
    given.events = given.events.sample(frac=1, random_state=1).reset_index(drop=True)
    rows = impressions(given, RULES, 1200)
    assert rows.times.tolist() == list(range(1500))
    assert rows.test_start == 1200
    assert rows.clicked.tolist() == (log()["event"] == "click").tolist()
    assert dict(zip(rows.fields, rows.sides, strict=True)) == {
        "user_id": "user",
        "item_id": "item",
        "item size": "item",
        "site": "context",
    }  # neither the column that never repeats nor the one that never changes
    assert rows.number_names == ("item price", "depth")
    assert np.isnan(rows.numbers[:, 1]).any()
    assert set(rows.counters(1200)) == {f"{field} {kind}" for field in rows.fields for kind in ("shown", "rate")}


def test_counters_do_not_hear_of_clicks_after_the_border() -> None:
    given, later = tables(), tables()
    later.events.loc[later.events["order"] >= 1200, "event"] = "impression"
    one, other = (impressions(which, RULES, 1200).counters(1200) for which in (given, later))
    for name, column in one.items():
        np.testing.assert_array_equal(column, other[name])
    assert np.unique(one["item_id rate"][1200:]).size <= 12  # frozen: one figure an ad, however often it is shown again


def test_missing_values_and_rows_of_one_time() -> None:
    assert hashed(pd.Series(["a", None, "a", "b"])).tolist()[1] == 0
    assert len(set(hashed(pd.Series(["a", None, "a", "b"])).tolist())) == 3
    given = tables()
    given.events["order"] //= 7
    rows = impressions(given, RULES)
    assert rows.times[rows.test_start - 1] < rows.times[rows.test_start]
    cutoff = rows.cutoff(0.5)
    assert rows.times[cutoff - 1] < rows.times[cutoff]


def test_times_that_are_times_give_gaps_and_files_give_the_same_back(tmp_path: Path) -> None:
    given = tables()
    given.events["timestamp"] = pd.to_datetime(given.events.pop("order") * 60_000, unit="ms", utc=True).astype("datetime64[ms, UTC]")
    rows = impressions(given, RULES)
    assert "user_id since" in rows.counters(rows.test_start)
    rows.save(tmp_path)
    again = Impressions.load(tmp_path)
    for name in Impressions.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))


def test_without_both_kinds_of_rows_nothing_is_learnt() -> None:
    given = tables()
    given.events["event"] = "click"
    with pytest.raises(InputError, match="some clicked and some not"):
        impressions(given, RULES)
    with pytest.raises(InputError, match="100 rows lie before the test part"):
        impressions(tables(), RULES, 100)


def test_values_are_hashed_by_a_key_without_which_nobody_can_try_ids(tmp_path: Path) -> None:
    given, key = tables(), b"a key of some length"
    plain, keyed = impressions(given, RULES), impressions(given, RULES, key=key)
    other = impressions(given, RULES, key=b"another key of this")
    user = keyed.fields.index("user_id")
    assert not set(keyed.hashes[:, user]) & (set(plain.hashes[:, user]) | set(other.hashes[:, user]))
    assert len(set(keyed.hashes[:, user])) == len(set(plain.hashes[:, user]))
    keyed.save(tmp_path)
    assert all(key not in path.read_bytes() for path in tmp_path.iterdir())
    again, who = Impressions.load(tmp_path), given.events["user_id"].iloc[0]
    more = again.followed_by(pd.DataFrame({"user_id": [who]}), np.array([10**15]), key)
    assert more.hashes[-1, user] in set(keyed.hashes[:, user])
    for wrong in (None, b"another key of this"):
        with pytest.raises(InputError, match="the log of clicks: made by the key"):
            again.followed_by(pd.DataFrame({"user_id": [who]}), np.array([10**15]), wrong)
