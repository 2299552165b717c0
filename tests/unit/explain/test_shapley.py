"""The axioms of the Shapley value, on games whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.explain.shapley import shapley, shapley_values

seeds = st.integers(0, 2**32 - 1)


def random_game(players: int, seed: int):
    """Any worth at all for each coalition."""
    worth = np.random.default_rng(seed).normal(size=2**players)
    return lambda coalitions: worth[coalitions @ (1 << np.arange(players))]


@given(st.integers(0, 8), seeds)
@settings(max_examples=40, deadline=None)
def test_exact_values_share_out_the_whole_worth(players, seed):
    found = shapley(random_game(players, seed), players, samples=256)
    assert found.evaluations == 2**players
    assert len(found.values) == players
    assert abs(found.gap) < 1e-12
    assert not found.errors.any()


@given(st.integers(5, 12), seeds)
@settings(max_examples=40, deadline=None)
def test_sampled_values_share_out_the_whole_worth_too(players, seed):
    found = shapley(random_game(players, seed), players, samples=31, seed=seed)
    assert abs(found.gap) < 1e-12


@given(st.integers(2, 8), seeds)
@settings(max_examples=30, deadline=None)
def test_equals_get_equal_shares_and_a_dummy_gets_its_own_worth(others, seed):
    rest = random_game(others, seed)

    def worth(coalitions):  # players 0 and 1 count together by number, player 2 always adds 3
        both = coalitions[:, 0].astype(int) + coalitions[:, 1]
        return rest(coalitions[:, 3:]) * (1 + both) ** 2 + 3.0 * coalitions[:, 2]

    values = shapley(worth, others + 3, samples=2 ** (others + 3)).values
    assert values[0] == pytest.approx(values[1], abs=1e-10)
    assert values[2] == pytest.approx(3.0, abs=1e-10)


@pytest.mark.parametrize("players", [3, 30])
def test_a_linear_game_gives_its_weights(players):
    weights = np.random.default_rng(0).normal(size=players)
    found = shapley(lambda coalitions: 5.0 + coalitions @ weights, players, samples=256)
    np.testing.assert_allclose(found.values, weights, atol=1e-12)
    np.testing.assert_allclose(found.errors, 0, atol=1e-12)
    assert found.none == 5.0


def test_antithetic_orders_are_exact_for_games_of_pairs():
    """An order and its reverse see each pair from both sides, so no interaction of two players is left to probability."""
    random = np.random.default_rng(1)
    pairs = np.triu(random.normal(size=(25, 25)), 1)
    found = shapley(lambda c: np.einsum("ni,ij,nj->n", c.astype(float), pairs, c.astype(float)), 25, samples=100)
    np.testing.assert_allclose(found.values, (pairs.sum(0) + pairs.sum(1)) / 2, atol=1e-12)


def test_the_glove_game():
    """Two left gloves and a right one: a pair is worth 1; the values are 1/6, 1/6, 4/6."""
    found = shapley(lambda c: (c[:, :2].any(1) & c[:, 2]).astype(float), 3, samples=8)
    np.testing.assert_allclose(found.values, [1 / 6, 1 / 6, 4 / 6])


def test_agrees_with_the_shap_library():
    import shap

    game = random_game(6, seed=3)
    explainer = shap.explainers.Exact(lambda masked: game(masked > 0.5), shap.maskers.Independent(np.zeros((1, 6))))
    theirs = explainer(np.ones((1, 6))).values[0]
    np.testing.assert_allclose(shapley(game, 6, samples=64).values, theirs, atol=1e-10)


def test_sampling_ends_where_values_are_known_well_enough():
    random = np.random.default_rng(2)
    weights, apart = random.normal(size=30), random.normal(size=30)

    def worth(coalitions):
        return np.stack([coalitions @ weights + 2 * np.sin(3 * coalitions @ apart), coalitions @ weights], axis=1)

    found = shapley_values(worth, 30, 100_000, precision=0.2)
    assert all(one.relative_error <= 0.2 for one in found)
    assert found[0].evaluations == found[1].evaluations < 20_000
    finer = shapley_values(worth, 30, 100_000, precision=0.05)
    assert finer[0].relative_error <= 0.05
    assert finer[0].evaluations > found[0].evaluations
    assert np.abs(found[0].values - finer[0].values).max() < 5 * found[0].errors.max()
    assert shapley_values(worth, 30, 600, precision=1e-9)[0].evaluations <= 600


def test_several_games_are_found_as_each_alone():
    one, other = random_game(6, seed=3), random_game(6, seed=4)
    found = shapley_values(lambda c: np.stack([one(c), other(c)], axis=1), 6, samples=64)
    for game, mine in zip((one, other), found, strict=True):
        np.testing.assert_allclose(mine.values, shapley(game, 6, samples=64).values, atol=1e-12)


def test_sampling_comes_close_within_its_own_errors():
    game = random_game(10, seed=4)
    exact = shapley(game, 10, samples=1024)
    found = shapley(game, 10, samples=1000, seed=5)
    assert found.evaluations <= 1000
    assert np.abs(found.values - exact.values).max() < 4 * found.errors.max()
    assert np.abs(found.values - exact.values).mean() < 2 * found.errors.mean()


@given(st.integers(9, 40), st.integers(160, 512))
@settings(max_examples=25, deadline=None)
def test_the_budget_is_kept_and_the_game_is_asked_once(players, samples):
    asked = []

    def worth(coalitions):
        asked.append(len(coalitions))
        return coalitions.sum(1).astype(float)

    found = shapley(worth, players, samples)
    assert asked == [found.evaluations]
    assert found.evaluations <= samples


def test_the_same_seed_gives_the_same_values():
    game = random_game(12, seed=6)
    one, same, other = (shapley(game, 12, 100, seed=seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
