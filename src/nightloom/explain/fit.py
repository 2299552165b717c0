"""The estimator of the service is fitted to long runs: how much each contribution counts, and how wrong the values are.

The targets' own noise does not bias a regression, so many histories of middling precision say more than a few exact ones. The noise is
known, and is taken off the errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.core.threads import each
from nightloom.explain.shapley import shapley_values
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.attribution import PLAYERS, UNKNOWN, Contributions, Estimator, contributions
from nightloom.serving.reasons.coalitions import Coalitions, history_players, subsets

RIDGE = 1e-2
"""Penalty, as a share of each contribution's mean square."""
FEWEST = 5
"""Histories with fewer events say nothing about how contributions differ."""
ITEMS = (0, 1, 2, 4, 9)
"""Places in the list of recommendations that are looked at."""
FEWEST_HISTORIES = 8
"""With fewer there is no fit."""
COVERED = 95
"""Percentage of errors that two standard errors are to hold."""


@dataclass(frozen=True)
class LongRun:
    """One history's targets.

    Attributes:
        found: what the estimator sees.
        values: float64 [players, items], Shapley values by sampling.
        errors: float64 [players, items], their standard errors.
        evaluations: coalitions that were scored for the targets.
    """

    found: Contributions
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    evaluations: int


def long_run(game: Coalitions, items: NDArray[np.integer], samples: int, seed: int, precision: float = 0.0) -> LongRun:
    """Sample the Shapley values of some items of one history; arguments as in `nightloom.explain.shapley.shapley_values`."""
    _, owner = history_players(game.events, PLAYERS)
    players = int(owner[-1]) + 1
    sampled = shapley_values(lambda keep: game.log_probabilities(keep[:, owner], items), players, samples, seed, precision)
    found = contributions(game, owner, items, game.history.items)
    values, errors = (np.stack([getattr(one, name) for one in sampled], axis=1) for name in ("values", "errors"))
    return LongRun(found, values, errors, sampled[0].evaluations)


def long_runs(engine: Engine, histories: Histories, samples: int, seed: int, precision: float = 0.0) -> Iterable[LongRun]:
    """Long runs of the latest events of the histories that are long enough, for items of their recommendations at `ITEMS`."""

    def run(at: int) -> LongRun | None:
        history = histories.take(slice(at, at + 1))
        latest = np.arange(len(history.items))[None] >= len(history.items) - PLAYERS  # older events cost time and teach little
        history = subsets(history, latest)
        game = engine.coalitions_of(history)
        scores = game.scores(np.ones((1, game.events), dtype=np.bool_))[0].copy()
        scores[history.items] = -np.inf
        best = np.argsort(-scores, kind="stable")
        places = [place for place in ITEMS if place < len(best) and np.isfinite(scores[best[place]])]
        return long_run(game, best[places], samples, seed, precision) if places else None

    return (found for found in each(run, np.flatnonzero(histories.lengths >= FEWEST).tolist()) if found is not None)


def fit(runs: Iterable[LongRun]) -> Estimator:
    """The estimator whose values are nearest to those of long runs, each weighted alike; `Estimator()` where there are too few."""
    runs = list(runs)
    if len(runs) < FEWEST_HISTORIES:
        return Estimator()
    products, wanted = np.zeros((3, 3)), np.zeros(3)
    for run in runs:
        size = np.sqrt(np.square(run.values).mean(0)).clip(1e-12)
        parts = np.stack([run.found.left_out, run.found.halves.mean(0), run.found.alone]) / size
        flat = parts.reshape(3, -1)
        products += flat @ flat.T / flat.shape[1]
        wanted += flat @ (run.values / size).ravel() / flat.shape[1]
    weights = np.linalg.solve(products + RIDGE * np.diag(np.diag(products)), wanted)
    fitted = Estimator((float(weights[0]), float(weights[1]), float(weights[2])))
    return replace(fitted, error=_error(runs, fitted), fitted=quality(runs, fitted))


def _error(runs: list[LongRun], estimator: Estimator) -> tuple[float, float, float]:
    """Shares of the error's variance, none below zero, so that two standard errors hold `COVERED` per cent of the errors."""
    from scipy.optimize import nnls

    spreads, squares, noise = [], [], []
    for run in runs:
        values = run.found.values(estimator)
        size = np.square(values).mean(0).clip(1e-24)
        spreads.append((run.found.spreads(values) / size).reshape(3, -1))
        squares.append((np.square(values - run.values) / size).ravel())
        noise.append((np.square(run.errors) / size).ravel())
    seen, table, own = np.concatenate(squares), np.concatenate(spreads, axis=1).T, np.concatenate(noise)
    shares = nnls(table, np.maximum(seen - own, 0))[0]
    if not shares.any():
        return UNKNOWN
    apart = np.sqrt(seen / np.maximum(table @ shares + own, 1e-24))
    shares = shares * max(1.0, float(np.percentile(apart, COVERED)) / 2) ** 2
    return float(shares[0]), float(shares[1]), float(shares[2])


def quality(runs: Iterable[LongRun], estimator: Estimator) -> dict[str, Any]:
    """How near the estimates come to long runs.

    Returns:
        `histories`; `relative_rmse` (root mean square error over the root mean square of the values) and `top_1` (how often the event that
        counts most is the same), means over recommendations; `target_error`: mean standard error of the targets over their mean size.
    """
    apart, first, noise, histories = [], [], [], 0
    for run in runs:
        values = run.found.values(estimator)
        size = np.sqrt(np.square(run.values).mean(0)).clip(1e-12)
        apart.append(np.sqrt(np.square(values - run.values).mean(0)) / size)
        first.append(values.argmax(0) == run.values.argmax(0))
        noise.append(run.errors.mean(0) / np.abs(run.values).mean(0).clip(1e-12))
        histories += 1
    return {
        "histories": histories,
        "relative_rmse": float(np.concatenate(apart).mean()),
        "top_1": float(np.concatenate(first).mean()),
        "target_error": float(np.concatenate(noise).mean()),
    }
