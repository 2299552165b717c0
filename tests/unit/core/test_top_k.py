"""The best items of each row against a stable sort of the whole row."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.core.top_k import best_items, top_k

few_values = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 1.0, np.inf])
"""So that ties are common."""


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(0, 60)), elements=few_values), st.integers(0, 12))
def test_small_rows(scores: np.ndarray, k: int) -> None:
    assert top_k(scores, k).tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("share", [0.001, 0.02, 1.0])
def test_long_rows_of_many_ties_or_none(k: int, decimals: int, share: float) -> None:
    random = np.random.default_rng(3)
    scores = np.round(random.normal(size=(5, 20_011)), decimals).astype(np.float32)
    scores[random.random(scores.shape) > share] = 0
    assert (top_k(scores, k) == np.argsort(-scores, axis=1, kind="stable")[:, :k]).all()


def test_columns_of_a_larger_table() -> None:
    scores = np.random.default_rng(3).normal(size=(4, 50)).astype(np.float32)[:, ::2]
    assert top_k(scores, 3).tolist() == np.argsort(-scores, axis=1)[:, :3].tolist()


def test_what_can_not_be_ranked_is_marked() -> None:
    items, values = best_items(np.array([[-np.inf, 2.0, -np.inf, 3.0]], dtype=np.float32), 3)
    assert items.tolist() == [[3, 1, -1]]
    assert values.tolist() == [[3.0, 2.0, -np.inf]]
