"""What is measured of lists without a history is what the service draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.sequences import Histories, Queries
from nightloom.evaluation.newcomers import measure_newcomers
from nightloom.packaging.bundle import Bundle
from tests.serving_bundle import DAY, START, serving_bundle

SAID = {"confidence": 0.95, "resamples": 200}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(serving_bundle(tmp_path_factory.mktemp("newcomers") / "bundle"))


def strangers(model: Bundle, n: int) -> tuple[Queries, np.ndarray]:
    """Queries of n people without a history and of one with, who all want one of the ten best."""
    histories = Histories.of_items([[]] * n + [[3, 4]])
    best = model.recommender.recommend(Histories.of_items([[]]), 10)[0][0]
    each = np.arange(n + 2)
    targets = np.append(best[np.arange(n) % 10], 5).astype(np.int32)
    times = np.full(n + 1, START)
    return Queries(each[:-1], histories, each, targets, times), np.array([f"u{one}" for one in range(n + 1)], dtype=object)


def test_off_is_one_list_and_on_are_many(bundle: Bundle) -> None:
    queries, people = strangers(bundle, 50)
    found = measure_newcomers(bundle.recommender, queries, people, 0.5, **SAID)
    assert (found["queries"], found["users"], found["temperature"]) == (50, 50, 0.5)
    assert (found["off"]["items"], found["off"]["shared"]) == (10, 10)
    assert found["on"]["items"] > 30
    assert found["on"]["shared"] < 9
    assert found["on"]["ndcg_at_10"] < found["off"]["ndcg_at_10"]  # all want what the model ranks first
    assert found["low"] < found["difference"] < 0
    again = measure_newcomers(bundle.recommender, queries, people, 0.5, **SAID)
    assert again == found
    tomorrow = replace(queries, times=queries.times + DAY)
    assert measure_newcomers(bundle.recommender, tomorrow, people, 0.5, **SAID)["on"] != found["on"]


def test_at_temperature_zero_on_is_off(bundle: Bundle) -> None:
    found = measure_newcomers(bundle.recommender, *strangers(bundle, 20), 0.0, **SAID)
    assert found["on"] == found["off"]
    assert found["difference"] == 0


def test_nobody_without_a_history_is_nothing(bundle: Bundle, tmp_path: Path) -> None:
    queries, people = strangers(bundle, 3)
    assert measure_newcomers(bundle.recommender, queries.take(np.array([3])), people[3:], 0.5, **SAID) == {}
