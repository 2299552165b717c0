"""A small shop: what was bought a short while ago is bought again soon. The fused scores do not know it, the re-ranker can learn it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.sequences import Histories, Queries
from nightloom.evaluation.reranker import measure_probabilities
from nightloom.explain.games import field_game, field_players
from nightloom.models.heads.item_counters import DAY, ItemCounters
from nightloom.models.heads.reranker import Numbers, candidates_of
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.serving.reasons.coalitions import log_softmax, subsets
from nightloom.training.reranking import choose_reranker
from tests.described_bundle import described_bundle
from tests.unit.models.test_sequential import N_ITEMS, small_recommender

NOW = 1_700_000_000
USERS = 600


def shop(*, lately: bool, seed: int = 0) -> tuple[SequentialRecommender, Queries]:
    """Every user bought six items in the last hundred days; held out is the latest of them (lately), or any item."""
    random = np.random.default_rng(seed)
    items = np.array([random.permutation(N_ITEMS)[:6] for _ in range(USERS)])
    days = np.sort(random.integers(1, 100, (USERS, 6)), axis=1)[:, ::-1]
    targets = items[:, -1] if lately else random.integers(0, N_ITEMS, USERS)
    order = np.array([random.permutation(6) for _ in range(USERS)])  # old events come anywhere, so that order alone says nothing
    items, days = np.take_along_axis(items, order, 1), np.take_along_axis(days, order, 1)
    n = items.size
    histories = Histories(
        np.arange(USERS + 1) * 6,
        items.ravel().astype(np.int32),
        NOW - days.ravel() * DAY,
        np.zeros(n, dtype=np.int16),
        np.ones(n, dtype=bool),
        np.full(USERS, NOW),
    )
    recommender = small_recommender()
    recommender.scorers["popularity"] = Popularity().fit(Histories.of_items([[0, 1, 2, 3], [3, 2, 4]]), N_ITEMS)  # nothing is expected
    recommender.weights = {"popularity": 0.5}
    return recommender, Queries(np.arange(USERS), histories, np.arange(USERS + 1), targets.astype(np.int32))


def fitted(*, lately: bool) -> tuple[SequentialRecommender, Queries]:
    """The shop's model with its re-ranker."""
    recommender, queries = shop(lately=lately)
    item_counters = ItemCounters.of(queries.histories, N_ITEMS)
    recommender.reranker = choose_reranker(recommender, queries, item_counters, exclude_seen=False, seed=1).head
    return recommender, queries


@pytest.fixture(scope="module")
def model() -> SequentialRecommender:
    return fitted(lately=True)[0]


def test_a_head_is_kept_where_it_is_significantly_better_and_helps_other_users(model: SequentialRecommender) -> None:
    assert model.reranker is not None
    _, others = shop(lately=True, seed=5)
    first = model.scores(others.histories).argmax(1)
    head, model.reranker = model.reranker, None
    try:
        without = model.scores(others.histories).argmax(1)
    finally:
        model.reranker = head
    assert (first == others.targets).mean() > 0.5
    assert (without == others.targets).mean() < 0.3


def test_where_there_is_nothing_to_learn_no_head_is_kept() -> None:
    assert fitted(lately=False)[0].reranker is None


def test_few_queries_get_no_head() -> None:
    recommender, queries = shop(lately=True)
    few = Queries(queries.users[:20], queries.histories.take(slice(0, 20)), queries.target_offsets[:21], queries.targets[:20])
    found = choose_reranker(recommender, few, ItemCounters.of(few.histories, N_ITEMS), exclude_seen=False, seed=1)
    assert (found.head, found.queries) == (None, 0)


def test_the_same_seed_gives_the_same_head(model: SequentialRecommender) -> None:
    again, queries = fitted(lately=True)
    np.testing.assert_array_equal(again.scores(queries.histories), model.scores(queries.histories))


def test_the_disk_keeps_the_head(model: SequentialRecommender, tmp_path: Path) -> None:
    _, queries = shop(lately=True)
    model.save(tmp_path)
    loaded = SequentialRecommender.load(tmp_path).reranker
    assert loaded is not None
    assert model.reranker is not None
    network, scorers = model.network_scores(queries.histories), model.scorer_scores(queries.histories)
    scores = [head.rescore(network, {"network": network, **scorers}, queries.histories) for head in (model.reranker, loaded)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5, atol=1e-5)


def test_a_request_long_after_training_has_odds_as_in_training(model: SequentialRecommender) -> None:
    """Its counters lie where the head has never been fitted; a straight line through them would lead anywhere."""
    _, others = shop(lately=True, seed=5)
    assert model.reranker is not None
    now = model.scores(others.histories)
    for years in (1, 50):
        later = replace(others.histories, request_time=others.histories.request_time + years * 365 * DAY)
        scores = model.scores(later)
        assert np.isfinite(scores).all()
        assert now.min() - 3 < scores.min()
        assert scores.max() < now.max() + 3


def test_within_what_was_fitted_numbers_are_what_they_were() -> None:
    random = np.random.default_rng(2)
    table = random.normal(3, 2, (500, 3)).astype(np.float32)
    table[:, 1] = 0.7  # a column that never varied
    numbers = Numbers.fit(table)
    np.testing.assert_array_equal(numbers(table)[:, :3], (table - numbers.centre) / numbers.scale)
    far = np.stack([table.max(0) + 1000, table.min(0) - 1000, table[0]])
    np.testing.assert_array_equal(numbers(far), numbers(np.stack([table.max(0), table.min(0), table[0]])))
    assert np.isnan(numbers(np.full((1, 3), np.nan, dtype=np.float32))[:, :3]).all()


def test_probabilities_of_other_users_are_calibrated(model: SequentialRecommender) -> None:
    _, others = shop(lately=True, seed=9)
    probability = 1 / (1 + np.exp(-model.scores(others.histories).astype(np.float64)))
    assert probability.sum() == pytest.approx(USERS, rel=0.1)  # each user has one held-out item


def test_without_its_id_an_item_has_no_events(model: SequentialRecommender) -> None:
    _, queries = shop(lately=True)
    one = queries.histories.take(slice(0, 1))
    item = int(queries.targets[0])
    parts = model.network_scores(one), model.scorer_scores(one)
    named, ablated = model.finish(*parts, one), model.finish(*parts, one, ablated=item)
    assert ablated[0, item] < named[0, item]
    others = np.arange(N_ITEMS) != item
    np.testing.assert_array_equal(ablated[0, others], named[0, others])


def test_the_latest_event_is_a_reason_for_its_item(model: SequentialRecommender) -> None:
    _, queries = shop(lately=True)
    one = queries.histories.take(slice(0, 1))
    item = int(queries.targets[0])
    keep = np.array([one.items != item, np.ones(6, dtype=bool)])
    without, with_it = log_softmax(model.scores(subsets(one, keep)), np.array([item]))[:, 0]
    assert with_it > without


def test_seen_items_are_no_candidates_where_they_are_not_shown() -> None:
    recommender, queries = shop(lately=True)
    scores = recommender.scores(queries.histories)
    found = candidates_of(scores, queries.histories, exclude_seen=True)[:, : N_ITEMS - 6]
    assert not any(np.isin(row, queries.histories.take(slice(at, at + 1)).items).any() for at, row in enumerate(found))
    order = np.random.default_rng(0).permuted(np.tile(np.arange(N_ITEMS), (USERS, 1)), axis=1)
    columns = candidates_of(np.take_along_axis(scores, order, 1), queries.histories, exclude_seen=True, items=order)
    np.testing.assert_array_equal(np.take_along_axis(order, columns, 1)[:, : N_ITEMS - 6], found)


def test_candidates_are_reranked_as_among_the_whole_catalogue(model: SequentialRecommender) -> None:
    _, others = shop(lately=True, seed=5)
    candidates = np.random.default_rng(0).permuted(np.tile(np.arange(N_ITEMS), (USERS, 1)), axis=1)
    expected = np.take_along_axis(model.scores(others.histories), candidates, 1)
    np.testing.assert_allclose(model.candidate_scores(others.histories, candidates), expected, atol=1e-4)


def test_newer_events_reach_the_counters(model: SequentialRecommender) -> None:
    _, queries = shop(lately=True)
    head = model.reranker
    assert head is not None
    renewed = replace(head, item_counters=ItemCounters.of(queries.histories, N_ITEMS, 10))
    assert renewed.item_counters.until(np.arange(N_ITEMS), np.full(N_ITEMS, NOW)).sum() == 6 * USERS


def test_calibration_is_measured_on_the_test_part(model: SequentialRecommender, tmp_path: Path) -> None:
    _, others = shop(lately=True, seed=9)
    found = measure_probabilities(model, others, tmp_path / "calibration.png", "a shop")
    assert found["rows"] == USERS * N_ITEMS
    assert found["positive"] == pytest.approx(1 / N_ITEMS)
    assert found["auc"] > 0.9
    assert found["ece"] < 0.05
    assert (tmp_path / "calibration.png").stat().st_size > 1000


def test_an_item_with_all_its_fields_is_worth_what_its_score_says(model: SequentialRecommender, tmp_path: Path) -> None:
    bundle = described_bundle(tmp_path / "bundle")
    recommender = bundle.recommender
    recommender.weights, recommender.reranker = {"popularity": 0.5}, model.reranker
    _, queries = shop(lately=True)
    history = queries.histories.take(slice(0, 1))
    item = int(queries.targets[0])
    players = field_players(recommender, bundle.spec, item)
    whole = np.ones((1, len(players)), dtype=bool)
    ablated = whole & (np.array(players) != "id")
    worth = field_game(recommender, history, item, bundle.spec, players)(np.concatenate([whole, ablated]))
    assert worth[0] == pytest.approx(log_softmax(recommender.scores(history), np.array([item]))[0, 0], abs=1e-4)
    assert worth[1] < worth[0]  # it was bought lately, which is not known of an item without its id
