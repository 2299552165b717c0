from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from nightloom.config import PrepareConfig
from nightloom.data.preparation.clean import DUPLICATE, FEW_ITEM_EVENTS, FEW_USER_EVENTS, OUTLIER, REPEAT, by_user, clean


def table(rows: list[tuple[str, str, int, str]]) -> pd.DataFrame:
    """Events from (user, item, hour, event)."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "event"])
    frame["timestamp"] = pd.to_datetime(frame["timestamp"] * 3600, unit="s", utc=True).astype("datetime64[ms, UTC]")
    return frame.astype({"user_id": "str", "item_id": "str", "event": "str"})


def reasons(removed: pd.DataFrame) -> dict[str, int]:
    return removed["reason"].value_counts().to_dict()


@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(-5, 5)), max_size=40),
    st.sampled_from([1, 10**9, 2**60]),  # the last leaves no room for the user in one number
)
def test_rows_are_sorted_by_user_then_time_then_row(rows: list[tuple[int, int]], unit: int) -> None:
    users, times = np.array([user for user, _ in rows], dtype=np.int32), np.array([time * unit for _, time in rows], dtype=np.int64)
    assert by_user(users, times).tolist() == np.lexsort((np.arange(len(rows)), times, users)).tolist()


def test_exact_duplicates_leave_and_the_first_stays() -> None:
    kept, removed = clean(table([("u", "a", 1, "view"), ("u", "a", 1, "view"), ("u", "a", 1, "buy")]), PrepareConfig(keep_repeats=True))
    assert kept["event"].tolist() == ["view", "buy"]
    assert reasons(removed) == {DUPLICATE: 1}


def test_of_repeats_the_first_in_time_stays_whatever_the_row_order() -> None:
    events = table([("u", "a", 5, "late"), ("u", "a", 1, "early"), ("u", "b", 2, "other"), ("v", "a", 9, "own")])
    kept, removed = clean(events, PrepareConfig())
    assert kept["event"].tolist() == ["early", "other", "own"]
    assert reasons(removed) == {REPEAT: 1}
    assert removed["event"].tolist() == ["late"]


def test_of_repeats_the_first_view_and_the_first_purchase_stay() -> None:
    rows = [("u", "a", 1, "view"), ("u", "a", 7, "buy"), ("u", "a", 3, "buy"), ("u", "b", 4, "view"), ("u", "b", 2, "view")]
    kept, removed = clean(table(rows), PrepareConfig(positive_events=("buy",)))
    assert kept[["item_id", "event"]].to_numpy().tolist() == [["a", "view"], ["a", "buy"], ["b", "view"]]
    assert kept["timestamp"].dt.hour.tolist() == [1, 3, 2]
    assert reasons(removed) == {REPEAT: 2}


def test_a_later_value_that_is_large_enough_stays() -> None:
    events = table([("u", "a", 1, "rating"), ("u", "a", 2, "rating"), ("u", "b", 1, "rating")]).assign(value=[2.0, 5.0, None])
    kept, _ = clean(events, PrepareConfig(positive_min_value=4))
    assert kept["value"].fillna(0).tolist() == [2, 5, 0]


@given(
    st.lists(
        st.tuples(st.sampled_from("uv"), st.sampled_from("ab"), st.integers(0, 9), st.sampled_from(["view", "cart", "buy"])), max_size=30
    ),
    st.sampled_from([None, ("buy",), ("buy", "cart"), ("return",)]),
    st.integers(1, 9),
)
def test_of_each_pair_the_first_event_and_the_first_positive_one_stay(
    rows: list[tuple[str, str, int, str]], positive_events: tuple[str, ...] | None, cut: int
) -> None:
    kept, removed = clean(table(rows), PrepareConfig(positive_events=positive_events))
    assert len(kept) + len(removed) == len(rows)
    good = set(positive_events or ("view", "cart", "buy"))
    expected = set()  # in the words of the rule, a pair at a time
    for user, item in dict.fromkeys((user, item) for user, item, *_ in rows):
        own = [row for row in rows if row[:2] == (user, item)]
        liked = [row for row in own if row[3] in good]
        expected |= {min(some, key=lambda row: row[2]) for some in (own, liked) if some}
    hours = kept["timestamp"].astype("int64") // 3_600_000
    assert len(kept) == len(expected)
    assert {*zip(kept["user_id"], kept["item_id"], hours, kept["event"], strict=True)} == expected
    before, _ = clean(table([row for row in rows if row[2] < cut]), PrepareConfig(positive_events=positive_events))
    assert before.equals(kept[hours < cut].reset_index(drop=True))  # what stays does not hang on what comes later


def test_a_robot_leaves_with_all_its_events() -> None:
    rows = [("robot", f"i{n}", 1, "view") for n in range(4)] + [("robot", "x", 50, "view")]
    rows += [("human", f"i{n}", 30 * n, "view") for n in range(4)]
    kept, removed = clean(table(rows), PrepareConfig(max_user_events_per_day=3))
    assert set(kept["user_id"]) == {"human"}
    assert reasons(removed) == {OUTLIER: 5}


def test_noise_rules_feed_each_other_until_nothing_changes() -> None:
    # "rare" falls, so its user has one event and falls, so "b" has one event and falls, so v falls.
    rows = [("u", "rare", 1, "e"), ("u", "b", 2, "e"), ("v", "b", 3, "e"), ("v", "a", 4, "e")]
    rows += [(f"w{n}", item, 5 + n, "e") for n in range(2) for item in ("a", "c")]
    kept, removed = clean(table(rows), PrepareConfig(min_user_events=2, min_item_events=2))
    assert set(kept["user_id"]) == {"w0", "w1"}
    assert reasons(removed) == {FEW_ITEM_EVENTS: 2, FEW_USER_EVENTS: 2}


def test_without_time_there_are_no_days_and_no_robots() -> None:
    events = table([("u", f"i{n}", 1, "e") for n in range(5)]).drop(columns="timestamp").assign(order=np.arange(5))
    kept, removed = clean(events, PrepareConfig(max_user_events_per_day=1))
    assert len(kept) == 5
    assert removed.empty


@given(
    st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(0, 60), st.sampled_from(["x", "y"])), max_size=40),
    st.integers(1, 3),
    st.integers(0, 3),
    st.booleans(),
)
def test_every_event_stays_or_leaves_with_a_reason_and_the_limits_hold(
    rows: list[tuple[str, str, int, str]], least_user: int, least_item: int, repeats: bool
) -> None:
    events = table(rows)
    config = PrepareConfig(min_user_events=least_user, min_item_events=least_item, keep_repeats=repeats, max_user_events_per_day=6)
    kept, removed = clean(events, config)
    assert len(kept) + len(removed) == len(events)
    assert removed["reason"].notna().all()
    assert (kept["user_id"].value_counts() >= least_user).all()
    assert (kept["item_id"].value_counts() >= least_item).all()
    assert not kept.duplicated().any()
    if not repeats:
        assert not kept.duplicated(["user_id", "item_id"]).any()
