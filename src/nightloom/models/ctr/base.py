"""What a click model can do: be fitted along a path of settings, of which validation chooses one, and give log-odds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.models.ctr.features import Inputs

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class ClickModel(ABC):
    """A model of the probability of a click, before calibration.

    Its settings that validation chooses lie on a path: epochs, rounds of boosting, strengths of a penalty.
    """

    name: ClassVar[str]

    @abstractmethod
    def path(self, train: Inputs, clicked: BoolArray, rows: Inputs) -> FloatArray:
        """Log-odds of other rows at every step of the path.

        Args:
            train: rows to learn from.
            clicked: bool [rows of train].
            rows: those to answer.

        Returns:
            float64 [steps, rows].
        """

    @abstractmethod
    def fit(self, train: Inputs, clicked: BoolArray, step: int) -> Self:
        """Learn at one step of the path."""

    @abstractmethod
    def log_odds(self, rows: Inputs) -> FloatArray:
        """Log-odds of rows, float64 [rows]."""
