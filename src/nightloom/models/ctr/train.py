"""Fitting click models: settings and calibration are chosen on folds before the test part, then the model is fitted on all before it.

Validation has a rolling origin (Tashman, International Journal of Forecasting 2000): the latter half of the rows before the test is
cut into folds. A model of all that lies before a fold predicts it, with counters that stop there. So validation is like the test,
and where rows are few it has half of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from nightloom.core.click_metrics import losses, measure
from nightloom.core.errors import InputError
from nightloom.core.ragged import offsets_of, owners
from nightloom.data.preparation.impressions import Impressions
from nightloom.models.ctr.base import BoolArray, ClickModel, FloatArray
from nightloom.models.ctr.baselines import Boosted, Logistic
from nightloom.models.ctr.calibrate import Calibrator, Kind, best_kind, out_of_fold
from nightloom.models.ctr.features import Encoder, Inputs
from nightloom.models.ctr.head import ClickHead

if TYPE_CHECKING:
    from nightloom.config import ClicksConfig

FIRST_HELD_OUT = 0.5
"""Share of the rows before the test that are only trained on."""


@dataclass(frozen=True)
class Fold:
    """Training rows of a model, and the rows that it predicts.

    Attributes:
        encoder: learnt from the rows before `start`.
        inputs: all rows up to `stop`, with counters of what was known before `start`.
        clicked: bool [stop].
        start: first row to predict.
        stop: where the rows end.
    """

    encoder: Encoder
    inputs: Inputs
    clicked: BoolArray
    start: int
    stop: int

    @property
    def learnt(self) -> Inputs:
        """Rows to learn from."""
        return self.inputs.take(slice(0, self.start))

    @property
    def held_out(self) -> Inputs:
        """Rows to predict."""
        return self.inputs.take(slice(self.start, self.stop))


def fold(rows: Impressions, start: int, stop: int) -> Fold:
    """A fold that trains on the rows before `start` and predicts those from there to `stop`."""
    encoder = Encoder.fit(rows, start)
    return Fold(encoder, encoder.encode(rows, start).take(slice(0, stop)), rows.clicked[:stop], start, stop)


def folds(rows: Impressions, count: int) -> list[Fold]:
    """The folds of validation, oldest first; rows of one time are never parted.

    Raises:
        InputError: the rows before a fold are all clicked or all not, or too many share one time.
    """
    borders = sorted({rows.cutoff(share) for share in np.linspace(FIRST_HELD_OUT, 1, count + 1)[:-1]} | {rows.test_start})
    first = rows.clicked[: borders[0]]
    if len(borders) < 2 or not first.any() or first.all():
        raise InputError(
            f"events: the first {borders[0]:,} of {rows.test_start:,} rows before the test part hold {int(first.sum()):,} clicks, so the "
            "rest can not be predicted from what is before it. Give finer times, or more rows of both kinds."
        )
    return [fold(rows, start, stop) for start, stop in pairwise(borders)]


@dataclass(frozen=True)
class Choice:
    """What validation chose for a model.

    Attributes:
        step: place on the model's path.
        calibrator: learnt on all folds.
        metrics: of the folds' rows; calibrated, for each fold by what was learnt on the others.
        losses: mean log-loss at every step of the path, before calibration.
    """

    step: int
    calibrator: Calibrator
    metrics: dict[str, float]
    losses: list[float]


def build(family: str, config: ClicksConfig, encoder: Encoder, seed: int) -> ClickModel:
    """An unfitted model of a family."""
    if family == "head":
        return ClickHead(config, encoder.n_codes, seed)
    return Boosted(seed, config.members) if family == "lightgbm" else Logistic(encoder.n_codes)


def choose(folds: list[Fold], config: ClicksConfig, make: Callable[[Fold], ClickModel], progress: Callable[[str, float], None]) -> Choice:
    """Ask along the path on every fold, and choose step and calibration by log-loss.

    Args:
        folds: those to choose on, oldest first.
        config: the run's section `clicks`; `calibration` counts.
        make: an unfitted model for a fold.
        progress: called with the share of folds that is done.
    """
    answers = []
    for done, one in enumerate(folds):
        answers.append(make(one).path(one.learnt, one.clicked[: one.start], one.held_out))
        progress(f"fold {done + 1} of {len(folds)}", (done + 1) / len(folds))
    log_odds = np.concatenate(answers, axis=1)
    clicked = np.concatenate([one.clicked[one.start :] for one in folds])
    number = owners(offsets_of([one.stop - one.start for one in folds]))
    path = [float(losses(clicked, expit(step)).mean()) for step in log_odds]
    step = int(np.argmin(path))
    kind: Kind = best_kind(log_odds[step], clicked, number) if config.calibration == "auto" else config.calibration
    probabilities = out_of_fold(kind, log_odds[step], clicked, number)
    return Choice(step, Calibrator.fit(kind, log_odds[step], clicked), measure(clicked, probabilities), path)


@dataclass(frozen=True)
class Fitted:
    """A model that has learnt from all rows before the test part.

    Attributes:
        model: the model.
        encoder: how rows become its inputs.
        choice: what validation chose.
        probabilities: float64 [rows of the test part], calibrated.
    """

    model: ClickModel
    encoder: Encoder
    choice: Choice
    probabilities: FloatArray


def fit(
    rows: Impressions, family: str, config: ClicksConfig, seed: int, progress: Callable[[str, float], None] = lambda _words, _share: None
) -> Fitted:
    """Choose on the folds, learn from everything before the test part, and answer the test part.

    Args:
        rows: what was shown; clicks of the test part are not looked at.
        family: one of `nightloom.models.ctr.names.FAMILIES`.
        config: the run's section `clicks`.
        seed: of everything random.
        progress: called with what is done, and the share of it.

    Raises:
        InputError: the rows can not be cut into folds.
    """
    made = folds(rows, config.folds)
    choice = choose(made, config, lambda one: build(family, config, one.encoder, seed), progress)
    last = fold(rows, rows.test_start, len(rows))
    model = build(family, config, last.encoder, seed).fit(last.learnt, last.clicked[: last.start], choice.step)
    return Fitted(model, last.encoder, choice, choice.calibrator(model.log_odds(last.held_out)))
