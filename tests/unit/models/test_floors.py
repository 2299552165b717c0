"""What every family must do; a new family adds one line to FAMILIES."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from nightloom.data.sequences import Histories
from nightloom.models.als import ALS
from nightloom.models.base import Recommender
from nightloom.models.graph import TransitionGraph
from nightloom.models.item_knn import ItemKNN
from nightloom.models.popularity import Popularity

FAMILIES: list[type[Recommender]] = [Popularity, ItemKNN, ALS, TransitionGraph]
POSITIVES_ALONE: list[type[Recommender]] = [Popularity, ItemKNN, ALS]  # the graph also learns from what came before a positive event
N_ITEMS, UNSEEN = 30, 29


@pytest.fixture(scope="module")
def train() -> Histories:
    """Users with a taste for even or odd items; item 0 is liked by all and item 29 seen by none."""
    random = np.random.default_rng(0)
    return Histories.of_items([[0, *(2 * random.permutation(14)[:8] + user % 2).tolist()] for user in range(80)])


@pytest.fixture(params=FAMILIES, ids=lambda family: family.family)
def model(request: pytest.FixtureRequest, train: Histories) -> Recommender:
    return request.param().fit(train, N_ITEMS)


ASKED = Histories.of_items([[2, 4, 6], [3, 5], [], [UNSEEN]])


def test_scores_have_a_row_a_history_and_a_column_an_item(model: Recommender) -> None:
    scores = model.scores(ASKED)
    assert scores.shape == (4, N_ITEMS)
    assert scores.dtype == np.float32
    assert not np.isnan(scores).any()
    assert model.scores(Histories.of_items([])).shape == (0, N_ITEMS)


def test_a_user_never_seen_is_served_and_nothing_seen_comes_back(model: Recommender) -> None:
    items, scores = model.recommend(ASKED, 10)
    assert items.shape == scores.shape == (4, 10)
    assert (items >= 0).all()
    assert not np.isin(items[0], [2, 4, 6]).any()
    assert not np.isin(items[1], [3, 5]).any()
    assert all(len(set(row)) == 10 for row in items.tolist())


def test_an_empty_history_gets_the_popular_items(model: Recommender, train: Histories) -> None:
    popular = np.argsort(-np.bincount(train.items, minlength=N_ITEMS), kind="stable")[:10]
    assert model.recommend(ASKED.take(slice(2, 3)), 10)[0][0].tolist() == popular.tolist()


@pytest.mark.parametrize("family", POSITIVES_ALONE)
def test_a_history_without_positives_is_like_an_empty_one(family: type[Recommender], train: Histories) -> None:
    viewed = Histories.of_items([[2, 4, 6], []])
    viewed.positive[:] = False
    scores = family().fit(train, N_ITEMS).scores(viewed)
    np.testing.assert_array_equal(scores[0], scores[1])


@pytest.mark.parametrize("family", POSITIVES_ALONE)
def test_only_positive_events_are_learnt(family: type[Recommender], train: Histories) -> None:
    kept = np.arange(len(train.items)) % 3 != 0
    marked = Histories(train.offsets, train.items, train.times, train.kinds, kept, train.asked_at)
    counts = np.add.reduceat(kept, train.offsets[:-1])
    fewer = Histories(
        np.concatenate([[0], np.cumsum(counts)]),
        train.items[kept], train.times[kept], train.kinds[kept], np.ones(kept.sum(), dtype=bool), train.asked_at,
    )  # fmt: skip
    alike = [family().fit(histories, N_ITEMS).scores(ASKED) for histories in (marked, fewer)]
    np.testing.assert_allclose(*alike, rtol=1e-5, atol=1e-6)


def test_the_same_fit_gives_the_same_scores(model: Recommender, train: Histories) -> None:
    np.testing.assert_array_equal(type(model)().fit(train, N_ITEMS).scores(ASKED), model.scores(ASKED))


def test_reading_back_gives_the_same_scores(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path)
    back = type(model).load(tmp_path)
    assert back.n_items == N_ITEMS
    np.testing.assert_array_equal(back.scores(ASKED), model.scores(ASKED))
    for path in tmp_path.glob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays.files)


def test_a_fit_warns_of_nothing(model: Recommender, train: Histories) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        type(model)().fit(train, N_ITEMS).scores(ASKED)


@pytest.mark.parametrize("unfitted", [ItemKNN(), ALS(factors=4), TransitionGraph()], ids=lambda model: model.family)
def test_a_taste_is_found_and_items_never_seen_can_not_be_ranked(unfitted: Recommender, train: Histories) -> None:
    model = unfitted.fit(train, N_ITEMS)
    even, odd = model.recommend(ASKED.take(slice(0, 2)), 6)[0]
    assert (even % 2 == 0).all()
    assert (odd[odd > 0] % 2 == 1).all()
    assert np.isneginf(model.scores(ASKED)[:, UNSEEN]).all()


@pytest.mark.parametrize("neighbours", [1, 5])
def test_item_knn_keeps_the_nearest(neighbours: int, train: Histories) -> None:
    whole, few = ItemKNN(N_ITEMS).fit(train, N_ITEMS).similar.toarray(), ItemKNN(neighbours).fit(train, N_ITEMS).similar.toarray()
    assert ((few > 0).sum(axis=1) <= neighbours).all()
    np.testing.assert_allclose(few.sum(axis=1), np.sort(whole, axis=1)[:, -neighbours:].sum(axis=1), rtol=1e-5)
    assert (np.diag(few) == 0).all()
