"""Calibration: from log-odds to true probabilities, fitted on rows that the model was not trained on.

Temperature and offset: Platt, Probabilistic Outputs for Support Vector Machines, 1999, and Guo et al., On Calibration of Modern Neural
Networks, ICML 2017. Isotonic: Zadrozny and Elkan, KDD 2002.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from nightloom.core.calibration import Line
from nightloom.core.click_metrics import losses
from nightloom.models.ctr.base import BoolArray, FloatArray

Kind = Literal["none", "temperature", "isotonic"]
KINDS: tuple[Kind, ...] = ("none", "temperature", "isotonic")


@dataclass(frozen=True)
class Calibrator:
    """A map from log-odds to probabilities that keeps their order.

    Attributes:
        kind: which of the three.
        slope: probability = sigmoid(slope * log-odds + offset); 1 / temperature.
        offset: see there.
        places: isotonic, log-odds at which the probability is known; between two of them it is interpolated.
        probabilities: isotonic, the probabilities there.
    """

    kind: Kind = "none"
    slope: float = 1.0
    offset: float = 0.0
    places: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()

    @classmethod
    def fit(cls, kind: Kind, log_odds: FloatArray, clicked: BoolArray) -> Self:
        """Fit on rows that the model was not trained on; without both labels nothing is changed."""
        if kind == "none" or clicked.all() or not clicked.any():
            return cls()
        if kind == "temperature":
            line = Line.fit(log_odds, clicked)
            return cls("temperature", line.slope, line.offset)
        from sklearn.isotonic import IsotonicRegression

        least = 1 / (len(clicked) + 2)  # no probability of 0 or 1: a first click would refute it at any price
        steps = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(log_odds, clicked)
        return cls("isotonic", places=tuple(steps.X_thresholds_.tolist()), probabilities=tuple(steps.y_thresholds_.tolist()))

    def __call__(self, log_odds: FloatArray) -> FloatArray:
        """Probabilities, float64 [rows]."""
        if self.kind == "isotonic":
            return np.interp(log_odds, self.places, self.probabilities)
        found: FloatArray = expit(self.slope * log_odds + self.offset)
        return found


def out_of_fold(kind: Kind, log_odds: FloatArray, clicked: BoolArray, fold: NDArray[np.int64]) -> FloatArray:
    """Probabilities of each fold by a calibrator of the others; with a single fold, uncalibrated ones."""
    probabilities = np.empty(len(log_odds))
    for one in np.unique(fold):
        own = fold == one
        probabilities[own] = Calibrator.fit(kind, log_odds[~own], clicked[~own])(log_odds[own]) if not own.all() else expit(log_odds)
    return probabilities


def best_kind(log_odds: FloatArray, clicked: BoolArray, fold: NDArray[np.int64]) -> Kind:
    """The kind whose out-of-fold probabilities have the smallest log-loss."""
    return min(KINDS, key=lambda kind: float(losses(clicked, out_of_fold(kind, log_odds, clicked, fold)).mean()))
