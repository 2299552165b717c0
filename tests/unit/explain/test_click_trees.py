"""LightGBM's Shapley values are those of its own library, and add up to its answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nightloom.config import ClicksConfig, PrepareConfig
from nightloom.data.preparation.impressions import Impressions, impressions
from nightloom.data.tables.schema import Tables
from nightloom.explain import click_trees, shap_plots
from nightloom.explain.click_trees import FILE, explain_trees
from nightloom.models.ctr.baselines import ROUNDS, Boosted
from nightloom.models.ctr.train import fit
from tests.made_clicks import log

CLICKS = ClicksConfig(folds=2, members=2)


def shown(rows: int) -> Impressions:
    rules = PrepareConfig(positive_events=("click",), keep_repeats=True)
    return impressions(Tables(log(rows).drop(columns="probability")), rules)


@pytest.mark.parametrize("step_has_codes", [False, True])
def test_values_are_those_of_lightgbm_and_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_has_codes: bool) -> None:
    rows = shown(1500)
    fitted = fit(rows, "lightgbm", CLICKS, 0)
    model = fitted.model
    assert isinstance(model, Boosted)
    if step_has_codes != model.with_codes:
        learnt = fitted.encoder.encode(rows, rows.test_start).take(slice(0, rows.test_start))
        model.fit(learnt, rows.clicked[: rows.test_start], len(ROUNDS) if step_has_codes else 0)
    drawn = []
    monkeypatch.setattr(click_trees, "saved", lambda path, plot: (drawn.append(plot), shap_plots.saved(path, plot)))
    explain_trees(fitted, rows, tmp_path, 0)
    found = drawn[0].__closure__[0].cell_contents
    table = model.table(fitted.encoder.encode(rows, rows.test_start).take(slice(rows.test_start, None)))
    assert found.values.shape == table.shape
    own = np.mean([one.predict(table, pred_contrib=True) for one in model.models], axis=0)
    np.testing.assert_allclose(found.values, own[:, :-1], atol=1e-8)
    answers = np.mean([one.predict(table, raw_score=True) for one in model.models], axis=0)
    np.testing.assert_allclose(found.values.sum(1) + found.base_values, answers, atol=1e-6)
    said = json.loads((tmp_path / FILE).read_text())
    assert said["rows"] == len(table)
    sizes = [one["mean_size"] for one in said["columns"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(np.abs(own[:, :-1]).mean(0).max())
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"shap_trees_bar.png", "shap_trees_beeswarm.png"}


def test_other_models_are_left_alone(tmp_path: Path) -> None:
    rows = shown(600)
    explain_trees(fit(rows, "logistic", CLICKS, 0), rows, tmp_path, 0)
    assert list(tmp_path.iterdir()) == []
