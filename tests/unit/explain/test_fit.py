"""The service's estimator, fitted to long runs: it recovers how values are made, owns up to its errors, and travels with the artefact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nightloom.explain.fit import FEWEST_HISTORIES, LongRun, fit, long_runs, quality
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.attribution import SIMPSON, Contributions, Estimator
from tests.serving_bundle import known_histories, serving_bundle


def made_run(random: np.random.Generator, weights: tuple[float, float, float], spread: float) -> LongRun:
    """A run whose values are a weighted sum of contributions, up to noise, and add up."""
    left_out, alone, halves = (random.normal(size=(20, 3)) for _ in range(3))
    both = np.stack([halves + 0.1, halves - 0.1])
    values = weights[0] * left_out + weights[1] * halves + weights[2] * alone
    values = values + spread * random.normal(size=values.shape)
    found = Contributions(left_out, both, alone, values.sum(0), np.zeros(3), np.ones((21, 3), int))
    return LongRun(found, values, np.full_like(values, 1e-6), 1_000)


def test_weights_are_recovered_and_two_errors_hold_most() -> None:
    random = np.random.default_rng(0)
    runs = [made_run(random, (0.3, 0.6, 0.1), 0.2) for _ in range(60)]
    found = fit(runs[:40])
    np.testing.assert_allclose(found.weights, (0.3, 0.6, 0.1), atol=0.03)
    apart = np.concatenate([np.abs(run.found.values(found) - run.values) / run.found.errors(found) for run in runs[40:]])
    assert 0.92 <= (apart < 2).mean() <= 0.98
    assert quality(runs[40:], found)["relative_rmse"] < quality(runs[40:], Estimator())["relative_rmse"]


def test_too_few_histories_are_not_fitted_to() -> None:
    random = np.random.default_rng(0)
    runs = [made_run(random, (0.3, 0.6, 0.1), 0.2) for _ in range(FEWEST_HISTORIES - 1)]
    assert fit(runs) == Estimator()
    assert Estimator().weights == SIMPSON


def test_the_fit_is_what_the_engine_reads(tmp_path: Path) -> None:
    bundle = serving_bundle(tmp_path / "bundle")
    write_serving(bundle, tmp_path / "plain")
    engine = Engine.open(tmp_path / "plain")
    assert engine.estimator == Estimator()
    found = fit(long_runs(engine, known_histories(12, seed=3), 200, seed=0))
    assert found.fitted is not None
    assert found.fitted["histories"] >= FEWEST_HISTORIES
    (tmp_path / "explainer.json").write_text(json.dumps({"weights": found.weights, "error": found.error, "fitted": found.fitted}))
    write_serving(bundle, tmp_path / "fitted", explainer=tmp_path / "explainer.json")
    theirs = Engine.open(tmp_path / "fitted").estimator
    assert theirs.weights == pytest.approx(found.weights)
    assert theirs.error == pytest.approx(found.error)


def test_estimates_come_near_to_long_runs(tmp_path: Path) -> None:
    write_serving(serving_bundle(tmp_path / "bundle"), tmp_path / "serving")
    engine = Engine.open(tmp_path / "serving")
    known = known_histories(30, seed=5)
    runs = list(long_runs(engine, known, 3_000, seed=0))
    half = len(runs) // 2
    said = quality(runs[half:], fit(runs[:half]))
    assert said["relative_rmse"] <= 0.5
    assert said["top_1"] >= 0.65
