"""The games of a recommendation: events are really taken out, fields are really missing, and removals are told."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import FeatureSpec
from nightloom.explain.fidelity import BUDGETS, removals, summarise
from nightloom.explain.games import (
    above_mean,
    field_game,
    field_players,
    history_game,
    history_players,
    subsets,
    without_fields,
)
from nightloom.explain.shapley import shapley
from nightloom.models.sequential.content_fusion import ItemContent
from tests.described_bundle import described_bundle


class Additive(Recommender):
    """Each event of a history adds a row of weights to the scores."""

    family = "additive"

    def __init__(self, weights: np.ndarray) -> None:
        self.weights, self.n_items = weights, weights.shape[1]

    def fit(self, train: Histories, n_items: int) -> Self:
        return self

    def scores(self, histories: Histories) -> np.ndarray:
        out = np.zeros((len(histories), self.n_items), dtype=np.float32)
        np.add.at(out, np.repeat(np.arange(len(histories)), histories.lengths), self.weights[histories.items])
        return out

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        raise NotImplementedError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return described_bundle(tmp_path_factory.mktemp("described") / "bundle")


@given(st.integers(0, 30), st.integers(2, 12))
def test_players_are_the_latest_events_and_the_older_ones_together(events, most):
    older, owner = history_players(events, most)
    assert older == max(0, events - most)
    assert len(owner) == events
    sizes = np.bincount(owner, minlength=1)
    if older:
        assert sizes[0] == older
        assert sizes[1:].tolist() == [1] * most
    else:
        assert owner.tolist() == list(range(events))


def test_subsets_take_events_out_and_keep_the_request():
    history = Histories(
        offsets=np.array([0, 3]),
        items=np.array([7, 8, 9], np.int32),
        times=np.array([10, 20, 30]),
        event_types=np.array([0, 1, 0], np.int16),
        positive=np.array([True, False, True]),
        request_time=np.array([99]),
    )
    found = subsets(history, np.array([[True, False, True], [False, False, False], [True, True, True]]))
    assert found.lengths.tolist() == [2, 0, 3]
    assert found.items.tolist() == [7, 9, 7, 8, 9]
    assert found.times.tolist() == [10, 30, 10, 20, 30]
    assert found.positive.tolist() == [True, True, True, False, True]
    assert found.request_time.tolist() == [99] * 3


@given(st.integers(2, 12), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_an_additive_model_gives_each_event_its_weight_above_the_catalogue(events, seed):
    random = np.random.default_rng(seed)
    model = Additive(random.normal(size=(6, 6)).astype(np.float32))
    items = random.integers(0, 6, events).tolist()
    _, owner = history_players(events, most=5)
    found = shapley(history_game(model, Histories.of_items([items]), 2, owner), int(owner[-1]) + 1, samples=64)
    alone = model.weights[items, 2] - model.weights[items].mean(1)
    np.testing.assert_allclose(found.values, np.bincount(owner, alone), atol=1e-5)
    assert found.none == 0


def test_what_raises_all_scores_alike_explains_nothing():
    scores = np.array([[1.0, 2.0, 6.0, -np.inf]], dtype=np.float32)
    np.testing.assert_allclose(above_mean(scores, 2), above_mean(scores + 40, 2), atol=1e-5)
    assert above_mean(scores, 2)[0] == pytest.approx(3.0)
    assert above_mean(scores, 3)[0] == 0


def test_players_are_the_fields_that_the_item_has(bundle):
    assert field_players(bundle.recommender, bundle.spec, 0) == ["text", "genres", "maker", "price", "id"]
    assert field_players(bundle.recommender, bundle.spec, 9) == ["id"]


def test_an_item_without_a_field_is_as_if_it_never_had_it(bundle):
    names = ["text", "genres", "maker", "price", "id"]
    coalitions = (np.arange(32)[:, None] >> np.arange(5)) & 1 == 1
    masked = without_fields(bundle.recommender.content, 0, bundle.spec, {name: ~coalitions[:, at] for at, name in enumerate(names)})
    row = bundle.items.iloc[[0]]
    with torch.no_grad():
        fused = bundle.recommender.net.eval().fusion(masked)
        for one, vector in zip(coalitions, fused, strict=True):
            frame = row.copy()
            for name, there in zip(names[1:4], one[1:4], strict=True):
                if not there:
                    frame[name] = np.nan if name == "price" else None
            content = ItemContent.build(
                bundle.spec.encode(frame), bundle.recommender.content.text[:1].numpy(), np.array([one[0]]), np.array([1 if one[4] else 0])
            )
            torch.testing.assert_close(vector, bundle.recommender.net.fusion(content)[0])


def test_all_fields_together_are_worth_the_recommendation_s_score(bundle):
    history = Histories.of_items([[1, 2, 3]])
    players = field_players(bundle.recommender, bundle.spec, 0)
    found = shapley(field_game(bundle.recommender, history, 0, bundle.spec, players), len(players), samples=256)
    assert found.all == pytest.approx(above_mean(bundle.recommender.scores(history), 0)[0], abs=1e-5)
    assert abs(found.gap) < 1e-6


def test_codes_of_other_columns_stay(bundle):
    out = without_fields(bundle.recommender.content, 1, bundle.spec, {"genres": np.array([True, False])})
    first, last = out.codes[: out.code_offsets[1]].tolist(), out.codes[out.code_offsets[1] :].tolist()
    whole = bundle.recommender.content.take(torch.tensor([1])).codes.tolist()
    genres = len(bundle.spec.vocabularies["genres"])
    assert isinstance(bundle.spec, FeatureSpec)
    assert first == [code for code in whole if code >= genres]
    assert last == whole
    assert out.has_text.all()


def test_taking_the_event_that_made_it_away_ends_the_recommendation():
    weights = np.zeros((8, 8), dtype=np.float32)
    weights[0, 7], weights[1:6, 6] = 5.0, 0.2
    model, history = Additive(weights), Histories.of_items([[1, 2, 0, 3, 4, 5]])
    found = removals(model, history, 7, ranked=[2, 0, 1, 3, 4, 5], seen=True)
    assert [one.removed for one in found] == list(BUDGETS)
    assert found[0].drop == pytest.approx(5.0 - (5.0 - 0.2 * 5) / 8, abs=1.0)
    assert found[0].rank == 2
    assert not found[0].still_first
    assert found[0].drop > found[0].drop_random
    table = pd.DataFrame(summarise([found, found[:1]]))
    assert table["removed"].tolist() == list(BUDGETS)
    assert table["users"].tolist() == [2, 1, 1]
    assert table["still_first"].tolist() == [0, 0, 0]


def test_a_short_history_is_never_emptied():
    model, history = Additive(np.eye(4, dtype=np.float32)), Histories.of_items([[0, 1]])
    assert [one.removed for one in removals(model, history, 2, ranked=[0, 1], seen=True)] == [1]
    assert removals(model, Histories.of_items([[0]]), 2, ranked=[0], seen=True) == []
