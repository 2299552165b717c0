"""The baselines of the click head: logistic regression and gradient boosting on the very same features.

LightGBM: Ke et al., LightGBM: A Highly Efficient Gradient Boosting Decision Tree, NeurIPS 2017.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse

from nightloom.models.ctr.base import BoolArray, ClickModel, FloatArray
from nightloom.models.ctr.features import Inputs

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Inverse penalties of logistic regression."""
ROUNDS = tuple(range(50, 601, 50))
TREES: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.02,
    "num_leaves": 6,
    "min_data_in_leaf": 30,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "verbose": -1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
}
"""Among the best on the folds of Avazu and Criteo: 13 settings were tried, of leaves, rows a leaf, features a tree, penalty and rate."""


class Logistic(ClickModel):
    """Logistic regression on one-hot codes and numbers; its path is that of ever weaker penalties.

    Args:
        n_codes: size of the code space.
    """

    name: ClassVar[str] = "logistic"

    def __init__(self, n_codes: int) -> None:
        self.n_codes = n_codes

    def path(self, train: Inputs, clicked: BoolArray, rows: Inputs) -> FloatArray:
        """Log-odds at each strength."""
        return np.array([self.fit(train, clicked, step).log_odds(rows) for step in range(len(STRENGTHS))])

    def fit(self, train: Inputs, clicked: BoolArray, step: int) -> Self:
        """Fit with one strength."""
        from sklearn.linear_model import LogisticRegression

        self.model = LogisticRegression(C=STRENGTHS[step], max_iter=500).fit(self._table(train), clicked)
        return self

    def log_odds(self, rows: Inputs) -> FloatArray:
        """The linear score."""
        found: FloatArray = self.model.decision_function(self._table(rows))
        return found

    def _table(self, rows: Inputs) -> sparse.csr_array:
        count, fields = rows.codes.shape
        places = (np.repeat(np.arange(count), fields), rows.codes.ravel())
        hot = sparse.csr_array((np.ones(count * fields), places), shape=(count, self.n_codes))
        return sparse.hstack([hot, sparse.csr_array(rows.numbers.astype(np.float64))], format="csr")


class Boosted(ClickModel):
    """LightGBM on raw numbers, counters and codes; its path is that of rounds, without the codes (counters say much of them), then with.

    Args:
        seed: of the draws of rows and features.
        members: models from different seeds whose log-odds are averaged, as the head's are; one alone walks the path.
    """

    name: ClassVar[str] = "lightgbm"

    def __init__(self, seed: int, members: int = 1) -> None:
        self.seed, self.members = seed, members

    def path(self, train: Inputs, clicked: BoolArray, rows: Inputs) -> FloatArray:
        """Log-odds after each number of rounds, without and with codes."""
        both = []
        for with_codes in (False, True):
            models = self._grow(train, clicked, ROUNDS[-1], with_codes, members=1)  # all of them would take as many times as long
            both += [self._answer(models, rows, with_codes, rounds) for rounds in ROUNDS]
        return np.array(both)

    def fit(self, train: Inputs, clicked: BoolArray, step: int) -> Self:
        """Grow as many trees as the step says."""
        self.with_codes, place = step >= len(ROUNDS), step % len(ROUNDS)
        self.models = self._grow(train, clicked, ROUNDS[place], self.with_codes, self.members)
        return self

    def table(self, rows: Inputs) -> FloatArray:
        """Rows as the trees read them: counters and numbers, then codes where the step has them."""
        return self._table(rows, self.with_codes)

    def log_odds(self, rows: Inputs) -> FloatArray:
        """Mean raw score."""
        return self._answer(self.models, rows, self.with_codes)

    def _grow(self, train: Inputs, clicked: BoolArray, rounds: int, with_codes: bool, members: int) -> list[Any]:
        import lightgbm

        table = self._table(train, with_codes)
        categorical = list(range(train.raw.shape[1], table.shape[1]))
        fit = partial(lightgbm.train, num_boost_round=rounds)
        return [
            fit(TREES | {"seed": self.seed * 1000 + member}, lightgbm.Dataset(table, clicked, categorical_feature=categorical))
            for member in range(members)
        ]

    def _answer(self, models: list[Any], rows: Inputs, with_codes: bool, rounds: int | None = None) -> FloatArray:
        table = self._table(rows, with_codes)
        found: FloatArray = np.mean([one.predict(table, raw_score=True, num_iteration=rounds) for one in models], axis=0)
        return found

    @staticmethod
    def _table(rows: Inputs, with_codes: bool) -> FloatArray:
        return np.column_stack([rows.raw, rows.codes]) if with_codes else rows.raw
