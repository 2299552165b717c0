"""Intervals that cover the truth as often as they say, and comparisons that depend on the rows alone."""

from __future__ import annotations

from dataclasses import astuple
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.config import PromotionConfig
from nightloom.core.errors import InputError
from nightloom.core.metrics import NAMES, parts_of_users
from nightloom.evaluation.statistics import compare, interval, pair_rows, paired, resampled_means, weights_of
from nightloom.promotion.gate import decide

vectors = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)


def rows(ranks: np.ndarray) -> pd.DataFrame:
    users = np.arange(len(ranks))
    return pd.DataFrame({"user_id": [f"u{user}" for user in users], "item_id": "i", "rank": pd.array(ranks, dtype="Int32")})


def one(pairs: list[tuple[float, float]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    first, second = np.array(pairs).T
    return {"m": first}, {"m": second}


@pytest.mark.parametrize(("users", "most"), [(80, 0.97), (400, 0.95)])  # few users that differ get a wider interval
def test_the_interval_covers_the_true_difference_as_often_as_it_says(users: int, most: float) -> None:
    random = np.random.default_rng(5)
    covered = []
    for seed in range(300):
        taste = random.random(users)  # shared by both runs, which is what pairing is for
        a, b = (random.random(users) < 0.3 + 0.4 * taste) * 1.0, (random.random(users) < 0.2 + 0.4 * taste) * 1.0
        found = paired({"m": a}, {"m": b}, confidence=0.9, resamples=400, seed=seed)["m"]
        covered.append(found.low <= 0.1 <= found.high)
    assert 0.85 <= np.mean(covered) <= most


def test_the_interval_of_one_mean_covers_it() -> None:
    random = np.random.default_rng(6)
    covered = [low <= 0.3 <= high for low, high in (interval((random.random(100) < 0.3) * 1.0, 0.9) for _ in range(500))]
    assert 0.85 <= np.mean(covered) <= 0.95
    assert interval(np.array([0.4])) == (0.4, 0.4)
    assert interval(np.array([1.0, 1.0, 0.5]))[1] == 1


@given(vectors)
@settings(max_examples=50)
def test_swapping_the_runs_negates(pairs: list[tuple[float, float]]) -> None:
    a, b = one(pairs)
    there, back = paired(a, b, resamples=200)["m"], paired(b, a, resamples=200)["m"]
    assert there.difference == -back.difference
    assert (there.low, there.high) == (pytest.approx(-back.high, abs=1e-12), pytest.approx(-back.low, abs=1e-12))
    assert there.share == pytest.approx(back.share)


@given(vectors, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_the_users_is_irrelevant(pairs: list[tuple[float, float]], random: Random) -> None:
    """The gate, a plot and `compare` hold the same users in another order each."""
    there = paired(*one(pairs), resamples=200)["m"]
    random.shuffle(pairs)
    back = paired(*one(pairs), resamples=200)["m"]
    assert (there.low, there.high) == (pytest.approx(back.low, abs=1e-12), pytest.approx(back.high, abs=1e-12))
    assert there.share == back.share


def test_one_metric_has_the_interval_that_it_has_among_others() -> None:
    random = np.random.default_rng(4)
    a, b = ({name: random.random(70) for name in "xyz"} for _ in range(2))
    among, alone = paired(a, b)["y"], paired({"y": a["y"]}, {"y": b["y"]})["y"]
    assert astuple(among) == pytest.approx(astuple(alone))


@given(vectors)
@settings(max_examples=50)
def test_identical_runs_differ_by_exactly_nothing(pairs: list[tuple[float, float]]) -> None:
    a, _ = one(pairs)
    found = paired(a, a, resamples=200)["m"]
    assert (found.difference, found.low, found.high, found.share) == (0, 0, 0, 1)


def test_the_same_seed_gives_the_same_draws_in_any_number_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((50, 2))
    whole = resampled_means(values, 100, seed=3)
    monkeypatch.setattr("nightloom.evaluation.statistics.BLOCK_CELLS", 500)
    np.testing.assert_allclose(resampled_means(values, 100, seed=3), whole)
    assert not np.allclose(resampled_means(values, 100, seed=4), whole)


def test_relative() -> None:
    assert paired({"m": np.array([0.6])}, {"m": np.array([0.5])})["m"].relative == pytest.approx(0.2)
    assert paired({"m": np.array([0.6])}, {"m": np.array([0.0])})["m"].relative is None


def test_compare_tables_every_metric_over_shared_users() -> None:
    a, b = rows(np.array([1, 1, 3, 50])), rows(np.array([2, 1, 30, 50, 1]))
    table = compare(a, b.sample(frac=1, random_state=0)).set_index("metric")
    assert table.index.tolist() == list(NAMES)
    assert table.columns.tolist() == ["a", "b", "difference", "low", "high", "users", "queries"]
    assert (table["users"] == 4).all()
    assert table.loc["hr_at_5", "a"] == 0.75
    assert table.loc["hr_at_5", "difference"] == pytest.approx(0.25)
    np.testing.assert_allclose(compare(b, a)["difference"], -table["difference"])


@pytest.mark.parametrize("far", [3, 40])
def test_the_gate_says_the_interval_that_compare_says(far: int) -> None:
    """Also where the two agree on every hit but rank the misses differently: that does not show that nobody would lose one."""
    random = np.random.default_rng(8)
    a = rows(random.integers(1, 30, 90) if far == 3 else np.full(90, 50))
    b = a.assign(rank=(a["rank"] + random.integers(0, far, 90)).astype("Int32"))
    found = decide(a, b, {}, PromotionConfig(resamples=300))
    shown = compare(b.sample(frac=1, random_state=1), a.sample(frac=1, random_state=2), resamples=300).set_index("metric").loc[found.metric]
    assert found.interval is not None
    assert found.interval == pytest.approx((-shown["high"], -shown["low"]))
    assert found.interval[0] < found.interval[1]


def test_refusals() -> None:
    a = rows(np.array([1, 2]))
    with pytest.raises(InputError, match="share no held-out user"):
        compare(a, a.assign(user_id="other", item_id=["x", "y"]))
    with pytest.raises(InputError, match=r"2 of 4 rows name a user's held-out item again.*Keep the rows of one family"):
        compare(pd.concat([a, a]), a)


def crowd(random: np.random.Generator, users: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of events and taste of each user; who has many events likes more, and all events of a user share a taste."""
    many = 1 + random.geometric(0.15, users)
    return many, 0.7 * random.beta(1, 2, users) + 0.2 * np.minimum(many, 20) / 20


def test_the_interval_covers_the_mean_over_events_where_a_users_events_resemble_each_other() -> None:
    many, taste = crowd(np.random.default_rng(0), 1_000_000)
    truth, random, users = float((taste * many).sum() / many.sum()), np.random.default_rng(7), 300
    covered, paired_covered, as_if_alone = [], [], []
    for seed in range(1000):
        many, taste = crowd(random, users)
        user = np.repeat(np.arange(users), many)
        hits, other = (((random.random(len(user)) < taste[user] + more) * 1.0) for more in (0.1, 0.0))
        parts, queries = parts_of_users({"m": hits, "o": other}, user)
        low, high = interval(parts["m"], 0.9, queries)
        covered.append(low <= truth + 0.1 <= high)
        low, high = interval(hits, 0.9)
        as_if_alone.append(low <= truth + 0.1 <= high)
        if seed < 200:
            found = paired({"m": parts["m"]}, {"m": parts["o"]}, queries=queries, confidence=0.9, resamples=300, seed=seed)["m"]
            paired_covered.append(found.low <= 0.1 <= found.high)
            assert (found.users, found.queries) == (users, len(user))
    assert np.mean(covered) >= 0.88
    assert np.mean(paired_covered) >= 0.88
    assert np.mean(as_if_alone) < 0.8, "a bootstrap over events would be far too sure"


@given(vectors, st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_with_one_query_a_user_everything_is_as_without_weights(pairs: list[tuple[float, float]], seed: int) -> None:
    a, b = one(pairs)
    users = np.arange(len(pairs))
    mine, queries = parts_of_users(a, users)
    np.testing.assert_array_equal(mine["m"], a["m"])
    assert paired(mine, b, queries=queries, resamples=100, seed=seed) == paired(a, b, resamples=100, seed=seed)
    assert interval(mine["m"], 0.9, queries) == interval(a["m"], 0.9)


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 1)), min_size=1, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_a_resample_is_the_mean_over_the_events_of_the_users_drawn(events: list[tuple[int, float]], random) -> None:
    user, value = np.array([one for one, _ in events]), np.array([one for _, one in events])
    parts, queries = parts_of_users({"m": value}, user)
    assert parts["m"].mean() == pytest.approx(value.mean(), abs=1e-12)
    weights = weights_of(queries)
    assert weights.mean() == pytest.approx(1)
    found = resampled_means(parts["m"][:, None], 30, 4, weights)[:, 0]
    drawn = np.random.default_rng(4).integers(0, len(queries), (30, len(queries)))
    names = np.unique(user)
    expected = [np.concatenate([value[user == names[place]] for place in row]).mean() for row in drawn]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    order = random.sample(range(len(events)), len(events))
    again, many = parts_of_users({"m": value[order]}, user[order])
    np.testing.assert_allclose(again["m"], parts["m"], atol=1e-12)
    np.testing.assert_array_equal(many, queries)


def streamed(ranks: dict[tuple[str, int], int], first: int = 0) -> pd.DataFrame:
    """Rows of streaming queries: (user, second) -> rank; queries are numbered from `first` on for each user."""
    names = ["user_id", "item_id", "time", "rank"]
    frame = pd.DataFrame([(user, f"i{time % 3}", time, rank) for (user, time), rank in ranks.items()], columns=names)
    frame["query"] = first + frame.groupby("user_id").cumcount()
    return frame.astype({"rank": "Int32", "time": "Int64"})


def test_events_are_known_by_their_time_though_nights_number_them_otherwise() -> None:
    a = streamed({("u", 1): 1, ("u", 4): 9, ("u", 5): 1, ("v", 2): 3}, first=7)
    b = streamed({("u", 4): 2, ("u", 5): 30, ("v", 2): 3, ("v", 8): 1})
    mine, its = pair_rows(a, b)
    assert mine[["user_id", "time"]].values.tolist() == its[["user_id", "time"]].values.tolist() == [["u", 4], ["u", 5], ["v", 2]]
    assert mine["rank"].tolist() == [9, 1, 3]
    assert its["rank"].tolist() == [2, 30, 3]
    table = compare(a, b).set_index("metric")
    assert table.loc["hr_at_10", ["a", "b", "users", "queries"]].tolist() == [1, pytest.approx(2 / 3), 2, 3]
    untimed = (one.assign(time=pd.array([None] * len(one), dtype="Int64")) for one in (a, b.assign(query=b["query"] + 8)))
    assert pair_rows(*untimed)[0]["query"].tolist() == [8, 9]  # the same item as the same of the user's events
    older = a.drop(columns=["query", "time"]).drop_duplicates(["user_id", "item_id"])
    assert len(pair_rows(older, older)[0]) == 3


def test_an_item_that_a_user_has_twice_on_a_date_is_two_rows() -> None:
    a = streamed({("u", 1): 1, ("u", 4): 9}).assign(time=86_400, item_id="i")
    b = a.assign(rank=pd.array([2, 30], dtype="Int32"), query=a["query"] + 5)
    mine, its = pair_rows(a, b.iloc[::-1])
    assert (mine["rank"].tolist(), its["rank"].tolist()) == ([1, 9], [2, 30])
