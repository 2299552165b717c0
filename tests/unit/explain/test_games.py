"""The games of a recommendation: events are really taken out, fields are really missing, and removals are told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import FeatureSpec
from nightloom.explain.fidelity import BUDGETS, measures, removals, summarise
from nightloom.explain.games import field_game, field_players, without_fields
from nightloom.explain.shapley import shapley
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.serving.reasons.coalitions import history_players, log_softmax, subsets
from tests.described_bundle import described_bundle


class Additive:
    """Stands for coalitions: each event of a history adds a row of weights to the scores."""

    def __init__(self, weights: np.ndarray, items: list[int]) -> None:
        self.weights, self.items, self.events = weights, items, len(items)

    def outcomes(self, keep: np.ndarray, items: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = keep.astype(np.float64) @ self.weights[self.items]
        worth = log_softmax(scores, items)
        scores[:, hidden] = -np.inf
        mine = scores[:, items]
        before = (scores[:, None] > mine[:, :, None]) | ((scores[:, None] == mine[:, :, None]) & (np.arange(8) < items[:, None]))
        return worth, 1 + before.sum(2)


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


def test_what_raises_all_scores_alike_explains_nothing():
    scores = np.array([[1.0, 2.0, 6.0, 3.0]], dtype=np.float32)
    np.testing.assert_allclose(log_softmax(scores, np.array([2])), log_softmax(scores + 40, np.array([2])), atol=1e-5)
    assert np.exp(log_softmax(scores, np.arange(4))).sum() == pytest.approx(1)


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
    assert found.all == pytest.approx(log_softmax(bundle.recommender.scores(history), np.array([0]))[0, 0], abs=1e-5)
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
    weights = np.zeros((8, 8))
    weights[0, 7], weights[1:6, 6] = 5.0, 0.2
    items = [1, 2, 0, 3, 4, 5]
    game = Additive(weights, items)
    found = removals(game, 7, ranked=[2, 0, 1, 3, 4, 5], hidden=np.array(items))
    assert [one.removed for one in found] == list(BUDGETS)
    assert found[0].drop == pytest.approx(5.0 - np.log((np.exp(5) + np.exp(1.0) + 6) / (1 + np.exp(1.0) + 6)))
    assert (found[0].rank, found[0].pos_at_5) == (2, True)
    assert not found[0].still_first
    assert found[0].drop > found[0].drop_random
    assert found[0].deletion == pytest.approx(np.exp(-found[0].drop))
    assert found[0].insertion > 1  # alone it is likelier than with those that speak for another item
    table = pd.DataFrame(summarise([found, found[:1]]))
    assert table["removed"].tolist() == list(BUDGETS)
    assert table["users"].tolist() == [2, 1, 1, 1, 1]
    assert table["still_first"].tolist() == [0] * 5


def test_measures_of_rankings_of_events():
    weights = np.zeros((8, 8))
    weights[0, 7], weights[1:6, 6] = 5.0, 0.2
    items = [1, 2, 0, 3, 4, 5]
    game = Additive(weights, items)
    found = measures(game, 7, {"true": [2], "false": [0, 1, 3, 4, 5], "none": []}, np.array(items))
    assert found["true"]["pos_at_5"] == 1  # two items are left to be ranked
    assert found["true"]["cdcg"] == pytest.approx(1 / np.log2(3))
    assert found["none"]["del"] == 1
    assert found["true"]["del"] < found["none"]["del"] < found["false"]["del"]
    assert found["true"]["ins"] > found["false"]["ins"]
    one = removals(game, 7, ranked=[2, 0], hidden=np.array(items))[0]
    assert found["true"]["del"] == pytest.approx(one.deletion)
    assert found["true"]["del_area"] > found["true"]["del"]  # its first steps remove nothing


def test_a_short_history_is_never_emptied():
    game = Additive(np.eye(8), [0, 1])
    assert [one.removed for one in removals(game, 2, ranked=[0, 1], hidden=np.array([0, 1]))] == [1]
    assert removals(Additive(np.eye(8), [0]), 2, ranked=[0], hidden=np.array([0])) == []
