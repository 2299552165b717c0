"""Which users and items fall into which slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.core.ranking import Ranked
from nightloom.core.sequences import Sequences
from nightloom.core.streaming import streaming_queries
from nightloom.evaluation import slices

N = 100


@pytest.fixture
def users() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in range(N)],
            "city": ["Rome|Italy"] * 50 + ["Oslo"] * 40 + ["Bonn"] * 5 + [None] * 5,
            "age": [np.nan] * 4 + random.permutation(96).tolist(),
            "level": pd.array([1, 2] * 48 + [None] * 4, dtype="Int64"),
            "paying": [True] * 30 + [False] * 70,
            "code": [f"c{user}" for user in range(N)],
        }
    )


def test_histories() -> None:
    found = slices.user_slices(np.array([0, 0, 1, 2, 3]))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in found.items()} == {
        "new users": [0, 1],
        "returning users": [2, 3, 4],
        "short history": [2, 3],
        "long history": [4],
    }


def test_slices_without_users_are_left_out(users: pd.DataFrame) -> None:
    assert list(slices.user_slices(np.zeros(5, dtype=np.int64))) == ["new users"]
    assert slices.user_slices(np.zeros(0, dtype=np.int64)) == slices.attribute_slices(users.head(0)) == {}


def test_attributes(users: pd.DataFrame) -> None:
    found = slices.attribute_slices(users)
    sizes = {name: int(mask.sum()) for name, mask in found.items()}
    assert sizes == {
        "city=Oslo": 40,
        "city=Rome/Italy": 50,
        "age from 0 to 23.75": 24,
        "age above 23.75 to 47.5": 24,
        "age above 47.5 to 71.25": 24,
        "age above 71.25 to 95": 24,
        "level=1": 48,
        "level=2": 48,
        "paying=False": 70,
        "paying=True": 30,
    }


def test_labels_name_each_users_slices() -> None:
    masks = {"a": np.array([True, False, True]), "b": np.array([False, False, True])}
    assert slices.labels(masks, 3).tolist() == ["a", "", "a|b"]


def test_items_by_popularity() -> None:
    found = slices.item_slices(np.array([0, 50, 10, 30, 10]))
    assert [name.split()[0] for name in found] == ["unseen", "head", "tail", "mid", "tail"]
    assert set(slices.item_slices(np.zeros(3, dtype=np.int64))) == {"unseen items"}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_a_more_popular_item_is_never_further_down(popularity: list[int]) -> None:
    counts = np.array(popularity)
    level = np.array([slices.ITEM_SLICES.index(name) for name in slices.item_slices(counts)])
    assert (np.diff(level[np.argsort(-counts, kind="stable")]) >= 0).all()
    assert ((level == 3) == (counts == 0)).all()


def test_measures_of_user_and_item_slices() -> None:
    ranked = Ranked(np.array([1, 30, 2], dtype=np.int32), np.array([0, 2, 3]), np.zeros((2, 1), dtype=np.int32))
    masks = {"first": np.array([True, False])}
    found = slices.measure(ranked, np.array([4, 9]), masks, np.array(["head items", "tail items", "tail items"], dtype=object))
    assert {name: (one["users"], one["events"], one["recall_at_10"]) for name, one in found.items()} == {
        "first": (1, 2, 0.5),
        "head items": (1, 1, 1.0),
        "tail items": (2, 2, 0.5),
    }


def test_streamed_events_are_sliced_by_what_is_known_of_user_and_item() -> None:
    """User 0 has a long past, user 1 comes after the cut; item 2 is new when user 1 has it first."""
    day, past = slices.DAY, 104
    times = np.concatenate([np.arange(past) + 1, [50 * day, 51 * day], [50 * day + 9, 50 * day + 10, 60 * day, 95 * day]])
    items = np.concatenate([np.zeros(past, dtype=np.int64), [0, 1], [2, 1, 2, 2]]).astype(np.int32)
    one = Sequences(
        np.array([0, past + 2, past + 6]), items, times, np.zeros(past + 6, dtype=np.int16), np.ones(past + 6, dtype=bool),
        np.array([past - 1, past + 2]), np.array([past, past + 2]), n_items=3,
    )  # fmt: skip
    queries = streaming_queries(one, "test", exclude_seen=False)
    assert queries.histories.lengths.tolist() == [104, 105, 0, 1, 2, 3]
    found = {name: np.flatnonzero(mask).tolist() for name, mask in slices.event_slices(queries, one).items()}
    assert found == {
        "new users": [2, 3, 4, 5],
        "returning users": [0, 1],
        "history of 0 events": [2],
        "history of 1 to 5 events": [3, 4, 5],
        "history of 101 or more events": [0, 1],
        "items up to 7 days old": [1, 2, 3],
        "items 8 to 30 days old": [4],
        "items over 30 days old": [0, 5],
    }
    untimed = replace(one, times=np.zeros_like(times))
    assert not any(name.startswith("items") for name in slices.event_slices(streaming_queries(untimed, "test"), untimed))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30))
def test_each_length_is_in_one_slice_that_names_it(lengths: list[int]) -> None:
    names = slices._bins(slices.LENGTHS)
    for length in lengths:
        name = names[np.searchsorted(slices.LENGTHS, length, side="right")].removesuffix(" events")
        low, _, high = name.partition(" to ")
        assert int(low.split()[0]) <= length
        assert "more" in name or length <= int(high or low)
