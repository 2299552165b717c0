"""The scorer als: what it solves, how old events fade, and what a sample of users changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.core.sequences import Histories
from nightloom.models.scorers import als
from nightloom.models.scorers.als import ALS

N_ITEMS = 24


def tastes(users: int, seed: int = 0) -> Histories:
    """Users with a taste for even or odd items."""
    random = np.random.default_rng(seed)
    return Histories.of_items([(2 * random.permutation(N_ITEMS // 2)[:7] + user % 2).tolist() for user in range(users)])


@pytest.fixture(scope="module")
def model() -> ALS:
    return ALS(factors=6, iterations=8, regularization=1.0).fit(tastes(60), N_ITEMS)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=12), min_size=1, max_size=6), st.integers(1, 1 << 12), st.integers(0, 99))
def test_a_history_is_solved_for_by_equation_four(model: ALS, lists: list[list[int]], cells: int, seed: int) -> None:
    histories = Histories.of_items(lists)
    liked = np.random.default_rng(seed).random(len(histories.items)) < 0.8
    histories = replace(histories, positive=liked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(als, "BLOCK_CELLS", cells)
        found = model.user_vectors(histories)
    factors = model.vectors[:, :-1].astype(np.float64)
    for row, (first, last) in enumerate(zip(histories.offsets[:-1], histories.offsets[1:], strict=True)):
        items = histories.items[first:last][liked[first:last]]
        weights = 0.95 ** np.arange(len(items) - 1, -1, -1)
        confidence, preference = np.zeros(N_ITEMS), np.zeros(N_ITEMS)
        np.add.at(confidence, items, weights)
        np.add.at(preference, items, 2 * weights)  # (1 + w) * 2 w / (1 + w)
        left = factors.T @ (factors * (1 + confidence)[:, None]) + np.eye(6)
        np.testing.assert_allclose(found[row, :-1], np.linalg.solve(left, factors.T @ preference), rtol=2e-3, atol=1e-4)
        assert found[row, -1] == 1


def test_the_last_events_count_most(model: ALS) -> None:
    even, odd = list(range(0, 12, 2)), list(range(1, 12, 2))
    rest = np.array([12, 14, 16]), np.array([13, 15, 17])
    for last, first, likes, other in ((even, odd, *rest), (odd, even, *reversed(rest))):
        scores = replaced(model, 0.5).scores(Histories.of_items([first + last]))[0]
        assert scores[likes].mean() > 2 * abs(scores[other].mean())


def replaced(model: ALS, recency: float) -> ALS:
    """The same factors, asked with another recency."""
    other = ALS(factors=6, regularization=1.0, recency=recency)
    return other._keep(model.vectors[:, :-1], model.popularity)


def test_a_sample_of_the_users_finds_the_same_tastes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "MOST_USERS", 50)
    found = ALS(factors=2, regularization=1.0).fit(tastes(400), N_ITEMS)
    assert found.popularity.sum() == 400 * 7  # popularity is of all
    lists, _ = found.recommend(Histories.of_items([[0, 2], [1, 3]]), 6)
    assert (lists[0] % 2 == 0).all()
    assert (lists[1] % 2 == 1).all()


def test_no_histories_and_no_items() -> None:
    assert ALS(factors=3).fit(Histories.of_items([]), 5).scores(Histories.of_items([[], [2]])).shape == (2, 5)
    assert ALS(factors=3).fit(Histories.of_items([[]]), 0).scores(Histories.of_items([[]])).shape == (1, 0)
