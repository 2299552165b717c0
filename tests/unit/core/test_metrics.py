"""Metrics against their definitions, written out user by user."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.core.errors import InputError
from nightloom.core.metrics import KS, NAMES, from_frame, mean, per_query

user_ranks = st.lists(st.integers(1, 40), min_size=1, max_size=25, unique=True)
"""Ranks of one user's held-out items; those above 30 are read as not rankable."""
everyone = st.lists(user_ranks.map(lambda ranks: [rank if rank <= 30 else 0 for rank in ranks]), min_size=1, max_size=8)


def measure(users: list[list[int]]) -> dict[str, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in users])]).astype(np.int64)
    return per_query(np.array([rank for one in users for rank in one], dtype=np.int32), offsets)


def frame(users: list[list[int]]) -> pd.DataFrame:
    rows = [(f"u{user}", f"i{row}", rank or None) for user, ranks in enumerate(users) for row, rank in enumerate(ranks)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"]).astype({"rank": "Int32"})


def by_definition(ranks: list[int], k: int) -> dict[str, float]:
    hits = [rank for rank in ranks if 1 <= rank <= k]
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(len(ranks), k) + 1))
    return {
        "hr": float(bool(hits)),
        "recall": len(hits) / len(ranks),
        "ndcg": sum(1 / math.log2(rank + 1) for rank in hits) / ideal,
        "mrr": 1 / min(hits) if hits else 0.0,
    }


@given(everyone)
def test_each_metric_is_its_definition(users: list[list[int]]) -> None:
    found = measure(users)
    assert tuple(found) == NAMES
    for user, ranks in enumerate(users):
        for k in KS:
            for stem, value in by_definition(ranks, k).items():
                assert found[f"{stem}_at_{k}"][user] == pytest.approx(value, abs=1e-12)


@given(everyone)
def test_metrics_lie_between_0_and_1_and_do_not_fall_with_k(users: list[list[int]]) -> None:
    found = measure(users)
    assert all(((values >= 0) & (values <= 1 + 1e-12)).all() for values in found.values())
    for stem in ("hr", "recall", "mrr"):  # NDCG's ideal grows with k, so it may fall
        assert (found[f"{stem}_at_5"] <= found[f"{stem}_at_10"]).all()
        assert (found[f"{stem}_at_10"] <= found[f"{stem}_at_20"]).all()


@given(st.integers(1, 20))
def test_a_perfect_ranking_has_ndcg_1(held_out: int) -> None:
    found = measure([list(range(1, held_out + 1))])
    assert all(found[f"ndcg_at_{k}"][0] == pytest.approx(1) for k in KS)
    assert found["recall_at_20"][0] == found["mrr_at_5"][0] == found["hr_at_5"][0] == 1


@given(everyone, st.randoms(use_true_random=False))
def test_the_order_of_users_and_rows_is_irrelevant(users: list[list[int]], random) -> None:
    shuffled = [random.sample(one, len(one)) for one in users]
    random.shuffle(shuffled)
    assert mean(measure(shuffled)) == pytest.approx(mean(measure(users)))
    rows = frame(users)
    order = random.sample(range(len(rows)), len(rows))
    pd.testing.assert_frame_equal(from_frame(rows.iloc[order]), from_frame(rows), check_exact=True)


@given(everyone)
def test_a_frame_gives_the_same(users: list[list[int]]) -> None:
    found, known = from_frame(frame(users)), measure(users)
    assert found.index.tolist() == [f"u{user}" for user in range(len(users))]
    for name in NAMES:
        np.testing.assert_allclose(found[name], known[name], atol=1e-12)


def test_no_users_have_no_means() -> None:
    assert mean(measure([])) == {}


def test_refusals() -> None:
    mixed = frame([[1, 2]]).assign(family=["a", "b"])
    with pytest.raises(InputError, match=r"several values of `family` \(a, b\)"):
        from_frame(mixed)
    for bad in (0, -1, 1.5, np.inf):
        with pytest.raises(InputError, match="1 of 2 values of `rank` are not whole numbers"):
            from_frame(pd.DataFrame({"user_id": ["u", "u"], "rank": [3.0, bad]}))


@given(st.lists(everyone, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_frame_of_several_queries_a_user_gives_parts_of_the_mean_over_queries(users: list[list[list[int]]], random) -> None:
    """Each user has a list of queries, each with the ranks of its held-out items."""
    rows = [
        (f"u{user}", 10 * query, f"i{row}", rank or None)
        for user, queries in enumerate(users)
        for query, ranks in enumerate(queries)
        for row, rank in enumerate(ranks)
    ]
    table = pd.DataFrame(rows, columns=["user_id", "query", "item_id", "rank"]).astype({"rank": "Int32"})
    found, known = from_frame(table), mean(measure([ranks for queries in users for ranks in queries]))
    assert found["queries"].tolist() == [len(queries) for queries in users]
    for name in NAMES:
        assert found[name].mean() == pytest.approx(known[name], abs=1e-12)
        for user, queries in enumerate(users):
            share = len(users) * len(queries) / sum(map(len, users))
            assert found[name].iloc[user] == pytest.approx(share * mean(measure(queries))[name], abs=1e-12)
    order = random.sample(range(len(table)), len(table))
    pd.testing.assert_frame_equal(from_frame(table.iloc[order]), found, check_exact=True)
