"""Groups and categories, worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import FeatureSpec
from nightloom.evaluation.fairness import HISTORY, categories_of, group_gaps, miscalibration

SAID = {"confidence": 0.95, "resamples": 500, "seed": 0}


def test_the_gap_is_between_the_best_and_the_worst_group_and_chance_draws_users() -> None:
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(300), 2)
    group = users % 3
    values = np.clip(0.5 - 0.1 * group + random.normal(0, 0.2, len(users)), 0, 1)
    masks = {f"sex={name}": group == place for place, name in enumerate("ABC")} | {"new users": users < 10}
    by_sex, history = group_gaps(values, users, masks, np.where(users < 150, 0, 3), **SAID)
    assert (by_sex["attribute"], by_sex["best"], by_sex["worst"]) == ("sex", "A", "C")
    assert by_sex["gap"] == pytest.approx(values[group == 0].mean() - values[group == 2].mean())
    assert by_sex["low"] < by_sex["gap"] < by_sex["high"]
    assert by_sex["low"] > 0  # by far more than chance
    assert [one["users"] for one in by_sex["groups"]] == [100, 100, 100]
    assert all(one["low"] < one["value"] < one["high"] for one in by_sex["groups"])
    assert history["attribute"] == HISTORY
    assert history["low"] < 0 < history["high"]  # nothing tells the two apart
    assert by_sex == group_gaps(values, users, masks, np.where(users < 150, 0, 3), **SAID)[0]


def test_one_group_has_no_gap() -> None:
    users = np.arange(30)
    assert group_gaps(np.ones(30), users, {"sex=F": users >= 0}, np.ones(30, dtype=np.int64), **SAID) == []


def test_lists_like_their_histories_are_calibrated() -> None:
    categories = np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 0]])
    histories = Histories.of_items([[0, 1], [0], [3], []])
    same = np.array([[2, 0, 1], [0, -1, -1], [0, 1, 2], [0, 1, 2]])
    assert miscalibration(same, histories, categories) == pytest.approx(0, abs=1e-9)
    apart = miscalibration(np.array([[0, 0], [1, -1]]), Histories.of_items([[0, 1], [0]]), categories)
    first = 0.5 * np.log(0.5 / (0.99 + 0.005)) + 0.5 * np.log(0.5 / 0.005)
    second = np.log(1 / 0.01)
    assert apart == pytest.approx((first + second) / 2)
    assert miscalibration(np.array([[3]]), Histories.of_items([[0]]), categories) is None


def test_tags_are_categories_before_other_columns() -> None:
    items = pd.DataFrame({"item_id": ["a", "b", "c"], "brand": ["x", "y", "x"], "genres": ["red|blue", "blue", None], "title": ["t"] * 3})
    spec = FeatureSpec.fit(items, {"brand": "category", "genres": "tags", "title": "text"})
    found = categories_of(spec.encode(items), spec)
    assert found is not None
    assert found[0] == "genres"
    assert found[1].tolist() == [[0.5, 0.5], [1, 0], [0, 0]]
    lone = FeatureSpec.fit(items, {"title": "text"})
    assert categories_of(lone.encode(items), lone) is None
