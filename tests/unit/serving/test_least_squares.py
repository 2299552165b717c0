"""The kernel that solves for a history gives what numpy gives."""

from __future__ import annotations

import numpy as np
import pytest

from nightloom.core.sequences import Histories
from nightloom.models.scorers.als import ALS
from nightloom.serving.model.members import Factors
from tests.serving_bundle import N_ITEMS, known_histories


@pytest.mark.parametrize(("factors", "regularization"), [(64, 10.0), (12, 0.1), (7, 0.1), (6, 0.1), (5, 0.1), (1, 1.0)])
@pytest.mark.parametrize("memory", [1, 7, 128])
def test_scores_of_a_history(factors: int, regularization: float, memory: int) -> None:
    als = ALS(factors=factors, regularization=regularization, memory=memory).fit(known_histories(), N_ITEMS)
    member = Factors({"vectors": als.vectors, "gram": als.gram}, {name: getattr(als, name) for name in als.settings})
    random, scores = np.random.default_rng(0), np.empty(N_ITEMS, np.float32)
    for events in (*range(10), 50, 400):
        history = Histories.of_items([random.integers(0, N_ITEMS, events).tolist()])
        history.positive[::3] = False
        member.score(history, scores)
        np.testing.assert_allclose(scores, als.scores(history)[0], atol=2e-6, rtol=1e-4)
