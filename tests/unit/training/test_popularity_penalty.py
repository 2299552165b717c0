"""The penalty is the most that validation allows, is kept in the bundle, and costs nothing where nobody asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightloom.core.sequences import Histories, Queries, Sequences
from nightloom.evaluation.trade_off import measure_trade_off
from nightloom.models.scorers.popularity import positive_counts
from nightloom.models.scorers.popularity_penalty import PopularityPenalty
from nightloom.packaging.bundle import Bundle
from nightloom.training.distributed import World
from nightloom.training.popularity_penalty import STRENGTHS, choose_penalty
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from tests.serving_bundle import N_ITEMS, known_histories, serving_bundle

SAID: dict[str, Any] = {"exclude_seen": True, "seed": 0}


def questions(model: Any, histories: Histories, likely: float) -> Queries:
    """What the model ranks first is held out of a share of the histories, of the others an item further down."""
    first = model.recommend(histories, 8)[0]
    random = np.random.default_rng(1)
    place = np.where(random.random(len(histories)) < likely, 0, random.integers(1, 8, len(histories)))
    targets = first[np.arange(len(histories)), place]
    each = np.arange(len(histories) + 1)
    return Queries(users=each[:-1], histories=histories, targets=targets, target_offsets=each, times=np.zeros(len(histories), np.int64))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(serving_bundle(tmp_path_factory.mktemp("penalty") / "bundle"))


def test_the_most_that_is_allowed_is_chosen(bundle: Bundle) -> None:
    model, known = bundle.recommender, known_histories(300, seed=5)
    queries, counts = questions(model, known, 0.7), positive_counts(known, N_ITEMS)
    before = 0.0
    for limit in (0.0, 0.01, 0.05, 0.3):
        found = choose_penalty(model, queries, counts, "auto", limit, **SAID)
        assert found.loss is not None
        assert found.error is not None
        assert found.loss + found.error <= limit
        assert found.queries == 300
        assert found.strength >= before
        before = found.strength
        curve = measure_trade_off(
            model, queries, counts, exclude_seen=True, confidence=0.95, resamples=200, seed=0, strengths=STRENGTHS
        )  # fmt: skip
        by_strength = {row["strength"]: row for row in curve["rows"]}
        assert -by_strength[found.strength]["relative"] == pytest.approx(found.loss, abs=1e-9)
        further = [row for strength, row in by_strength.items() if strength > found.strength]
        assert (further[0]["high"] - further[0]["low"]) / 4 - further[0]["relative"] > 0.9 * limit
    assert before > 0


def test_a_number_is_taken_as_it_is_and_nothing_to_go_by_gives_none(bundle: Bundle) -> None:
    counts = positive_counts(known_histories(), N_ITEMS)
    queries = questions(bundle.recommender, known_histories(), 0.5)
    assert choose_penalty(bundle.recommender, queries, counts, 0.35, 0.0, **SAID).strength == 0.35
    assert choose_penalty(bundle.recommender, queries.take(np.zeros(0, np.int64)), counts, "auto", 0.5, **SAID).strength == 0


def test_lists_reach_further_down_the_tail_the_stronger_it_is(bundle: Bundle) -> None:
    known = known_histories(300, seed=5)
    counts = positive_counts(known, N_ITEMS) * np.arange(N_ITEMS) ** 2  # a long tail
    queries = questions(bundle.recommender, known, 0.7)
    found = measure_trade_off(bundle.recommender, queries, counts, exclude_seen=True, confidence=0.95, resamples=200, seed=0)
    arp = [row["arp"] for row in found["rows"]]
    assert arp == sorted(arp, reverse=True)
    assert found["rows"][-1]["aplt"] > found["rows"][0]["aplt"]
    assert (found["chosen"], found["rows"][0]["relative"]) == (0, 0)
    model = replace_penalty(bundle.recommender, PopularityPenalty.of(counts, 0.3))
    again = measure_trade_off(model, queries, counts, exclude_seen=True, confidence=0.95, resamples=200, seed=0)
    assert again["rows"] == found["rows"]  # the model's own penalty is left out of the curve
    assert again["chosen"] == 0.3


def replace_penalty(model: Any, penalty: PopularityPenalty) -> Any:
    from copy import copy

    found = copy(model)
    found.penalty = penalty
    return found


@pytest.mark.parametrize("asked", [0.0, 0.5])
def test_a_run_writes_it(tmp_path: Path, settings: Any, write_run: Any, shop: Any, asked: float) -> None:
    config = settings(epochs=1, model={"scorers": ["popularity"], "popularity_penalty": asked})
    figures = Training(Run.load(write_run(config, tmp_path)), World())()
    model = Bundle.load(tmp_path / "bundle").recommender
    assert figures["popularity_penalty"]["strength"] == asked
    assert (model.penalty is not None) == bool(asked)
    assert (tmp_path / "bundle" / "popularity_penalty.npz").exists() == bool(asked)
    if model.penalty is not None:
        known = Sequences.load(shop.prepared / "sequences_temporal.npz").train(with_validation=True)
        wanted = PopularityPenalty.of(positive_counts(known, model.n_items), asked, model.fused_unit)
        np.testing.assert_array_equal(model.penalty.values, wanted.values)
        scores, none = model.scores(known), replace_penalty(model, None).scores(known)  # type: ignore[arg-type]
        np.testing.assert_allclose(scores, none - wanted.values, atol=1e-6)
