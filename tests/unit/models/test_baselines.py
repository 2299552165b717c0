"""What every family must do; a new family adds one line to QUICK."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from nightloom.config import BaselineName, EvaluationConfig
from nightloom.core.errors import InputError
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.models.baselines.item_knn import ItemKNN
from nightloom.models.baselines.named import NAMES, build, family_class
from nightloom.models.baselines.popularity_recent import DAY, PopularityRecent

QUICK: dict[str, dict[str, Any]] = {
    "popularity": {},
    "popularity_recent": {},
    "item_knn": {},
    "user_knn": {"neighbours": 20},
    "session_knn": {"neighbours": 20},
    "als": {"factors": 4},
    "bpr": {"factors": 8},
    "ease": {"l2": 10.0},
    "graph": {},
    "word2vec": {"dim": 16, "window": 8},
    "mlp": {"dim": 16, "hidden": 8, "epochs": 12, "negatives": 16, "batch": 64, "learning_rate": 0.02},
    "gru": {"dim": 16, "epochs": 12, "batch": 8, "learning_rate": 0.02},
}
"""Settings with which a family learns a small pattern in a moment."""

SAME_FOR_ALL = ("popularity", "popularity_recent")
RANK_ALL = ("popularity", "als")  # they rank items never seen too: last, or as what nothing is known of
POSITIVES_ALONE = [name for name in QUICK if name != "graph"]  # the graph also learns from what came before a positive event
WITHOUT_A_BEGINNING = [name for name in QUICK if name not in ("mlp", "gru")]  # those two learn how histories begin
N_ITEMS, UNSEEN = 30, 29


def unfitted(name: str) -> Recommender:
    return family_class(name)(**QUICK[name])


@pytest.fixture(scope="module")
def train() -> Histories:
    """Users with a taste for even or odd items; item 0 is liked by all and item 29 seen by none."""
    random = np.random.default_rng(0)
    return Histories.of_items([[0, *(2 * random.permutation(14)[:8] + user % 2).tolist()] for user in range(80)])


class Fitted(dict[str, Recommender]):
    """Each family, fitted when it is first asked for."""

    def __init__(self, train: Histories) -> None:
        self.train = train

    def __missing__(self, name: str) -> Recommender:
        self[name] = unfitted(name).fit(self.train, N_ITEMS)
        return self[name]


@pytest.fixture(scope="module")
def fitted(train: Histories) -> dict[str, Recommender]:
    return Fitted(train)


@pytest.fixture(params=QUICK)
def model(request: pytest.FixtureRequest, fitted: dict[str, Recommender]) -> Recommender:
    return fitted[request.param]


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


@pytest.mark.parametrize("name", WITHOUT_A_BEGINNING)
def test_an_empty_history_gets_the_popular_items(name: str, fitted: dict[str, Recommender], train: Histories) -> None:
    popular = np.argsort(-np.bincount(train.items, minlength=N_ITEMS), kind="stable")[:10]
    assert fitted[name].recommend(ASKED.take(slice(2, 3)), 10)[0][0].tolist() == popular.tolist()


@pytest.mark.parametrize("name", POSITIVES_ALONE)
def test_a_history_without_positives_is_like_an_empty_one(name: str, fitted: dict[str, Recommender]) -> None:
    viewed = Histories.of_items([[2, 4, 6], []])
    viewed.positive[:] = False
    scores = fitted[name].scores(viewed)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


@pytest.mark.parametrize("name", POSITIVES_ALONE)
def test_only_positive_events_are_learnt(name: str, train: Histories) -> None:
    kept = np.arange(len(train.items)) % 3 != 0
    marked = Histories(train.offsets, train.items, train.times, train.event_types, kept, train.request_time)
    counts = np.add.reduceat(kept, train.offsets[:-1])
    fewer = Histories(
        np.concatenate([[0], np.cumsum(counts)]),
        train.items[kept], train.times[kept], train.event_types[kept], np.ones(kept.sum(), dtype=bool), train.request_time,
    )  # fmt: skip
    alike = [unfitted(name).fit(histories, N_ITEMS).scores(ASKED) for histories in (marked, fewer)]
    np.testing.assert_allclose(*alike, rtol=1e-5, atol=1e-6)


def test_the_same_fit_gives_the_same_scores(model: Recommender, train: Histories) -> None:
    np.random.random()  # noqa: NPY002 - the global stream must not matter
    np.testing.assert_array_equal(unfitted(model.family).fit(train, N_ITEMS).scores(ASKED), model.scores(ASKED))


@pytest.mark.parametrize("name", ["als", "bpr", "word2vec", "mlp", "gru"])
def test_another_seed_gives_another_model(name: str, fitted: dict[str, Recommender], train: Histories) -> None:
    other = family_class(name)(**QUICK[name], seed=8).fit(train, N_ITEMS)
    assert not np.array_equal(other.scores(ASKED), fitted[name].scores(ASKED))


def test_reading_back_gives_the_same_scores(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path)
    back = type(model).load(tmp_path)
    assert back.n_items == N_ITEMS
    np.testing.assert_array_equal(back.scores(ASKED), model.scores(ASKED))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".npz", ".safetensors"}
    for path in tmp_path.glob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays.files)


@pytest.mark.parametrize("name", [name for name in QUICK if name not in ("mlp", "gru")])
def test_a_fit_warns_of_nothing(name: str, train: Histories) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unfitted(name).fit(train, N_ITEMS).scores(ASKED)


@pytest.mark.parametrize("name", [name for name in QUICK if name not in SAME_FOR_ALL])
def test_a_taste_is_found(name: str, fitted: dict[str, Recommender]) -> None:
    even, odd = fitted[name].recommend(ASKED.take(slice(0, 2)), 6)[0]
    assert (even % 2 == 0).all()
    assert (odd[odd > 0] % 2 == 1).all()


@pytest.mark.parametrize("name", [name for name in QUICK if name not in RANK_ALL])
def test_items_never_seen_can_not_be_ranked(name: str, fitted: dict[str, Recommender]) -> None:
    scores = fitted[name].scores(ASKED)
    assert np.isneginf(scores[:, UNSEEN]).all()
    assert np.isfinite(np.delete(scores, UNSEEN, axis=1)[:, :28]).all()


def test_als_knows_nothing_of_items_never_seen(fitted: dict[str, Recommender]) -> None:
    scores = fitted["als"].scores(ASKED)
    assert (scores[:, UNSEEN] == 0).all()
    liked = [ASKED.items[ASKED.offsets[row] : ASKED.offsets[row + 1]] for row in range(2)]
    assert all((scores[row, items] > 0).all() for row, items in enumerate(liked))


@pytest.mark.parametrize("name", QUICK)
def test_no_events_at_all(name: str) -> None:
    model = unfitted(name).fit(Histories.of_items([[], []]), 3)
    items, _ = model.recommend(Histories.of_items([[], [1]]), 2)
    assert name in RANK_ALL or (items == -1).all()


@pytest.mark.parametrize(
    ("name", "module", "limit"),
    [
        *[(name, f"baselines.{name}", "BLOCK_CELLS") for name in ("user_knn", "session_knn", "ease")],
        ("graph", "scorers.sparse", "BLOCK_CELLS"),
        *[("mlp", "baselines.mlp", "CELLS"), ("gru", "baselines.gru", "ANSWER_TOKENS")],
    ],
)
def test_many_small_blocks_give_what_one_gives(
    name: str, module: str, limit: str, train: Histories, fitted: dict[str, Recommender], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted[name].scores(ASKED)
    monkeypatch.setattr(f"nightloom.models.{module}.{limit}", 40)
    model = fitted[name] if name in ("mlp", "gru") else unfitted(name).fit(train, N_ITEMS)
    np.testing.assert_allclose(model.scores(ASKED), whole, rtol=1e-4, atol=1e-5)


def test_ease_refuses_a_catalogue_that_does_not_fit(train: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightloom.models.baselines.ease.MOST_ITEMS", 20)
    with pytest.raises(InputError, match="at most 20"):
        build("ease").fit(train, N_ITEMS)


def test_ease_solves_its_least_squares(train: Histories) -> None:
    model = family_class("ease")(l2=3.0).fit(train, N_ITEMS)
    x = np.zeros((len(train), N_ITEMS))
    x[np.repeat(np.arange(len(train)), train.lengths), train.items] = 1
    x = x[:, model.seen]
    p = np.linalg.inv(x.T @ x + 3.0 * np.eye(len(model.seen)))
    expected = -p / np.diag(p)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(model.weights, expected, atol=1e-4)


def test_recent_events_come_before_all_others() -> None:
    train = Histories.of_items([[0, 0, 0, 1, 1, 2]])
    train.times[:] = np.array([0, 0, 0, 1, 20, 20]) * DAY
    items, _ = PopularityRecent().fit(train, 4).recommend(Histories.of_items([[]]), 4)
    assert items[0].tolist() == [1, 2, 0, -1]


def test_the_config_may_name_every_family() -> None:
    assert set(get_args(BaselineName)) == set(NAMES) == set(QUICK)
    assert EvaluationConfig(baselines=NAMES).baselines == NAMES
    assert EvaluationConfig().baselines == ("popularity", "item_knn", "als", "graph")
    with pytest.raises(InputError, match="item_knn"):
        build("nearest")


def test_a_seed_reaches_the_families_that_are_random() -> None:
    assert build("bpr", 3).seed == 3
    assert build("popularity", 3).family == "popularity"


@pytest.mark.parametrize("neighbours", [1, 5])
def test_item_knn_keeps_the_nearest(neighbours: int, train: Histories) -> None:
    whole, few = ItemKNN(N_ITEMS).fit(train, N_ITEMS).similar.toarray(), ItemKNN(neighbours).fit(train, N_ITEMS).similar.toarray()
    assert ((few > 0).sum(axis=1) <= neighbours).all()
    np.testing.assert_allclose(few.sum(axis=1), np.sort(whole, axis=1)[:, -neighbours:].sum(axis=1), rtol=1e-5)
    assert (np.diag(few) == 0).all()
