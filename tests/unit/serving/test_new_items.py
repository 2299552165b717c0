"""Items that come and go by day: placed as the night would place them, without a rebuild."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from nightloom.core.errors import InputError
from nightloom.core.moments import VectorMoments
from nightloom.core.queries import Query
from nightloom.encoders.vectors import Vectors
from nightloom.models.scorers.als import ALS
from nightloom.models.scorers.item_graph import strongest
from nightloom.models.scorers.newcomers import NEIGHBOURS, expected
from nightloom.models.scorers.popularity import Popularity
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.scoring import moments
from tests.serving_bundle import N_ITEMS, START, TEXT_DIM, serving_bundle, some_query

HALF = 5e-4
"""A bundle keeps text vectors in half precision, and edges as they were found before."""
KINDS: dict[str, dict[str, Any]] = {
    "all": {"genres": "blue | red|unheard of", "price": 12.5},
    "tags as a list": {"genres": ["green", "red"], "price": "7"},
    "no columns": {},
    "missing": {"genres": None, "price": float("nan")},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("items")
    write_serving(serving_bundle(home / "bundle", reranker=True, labels=True, adapter=4), home / "serving")
    return home


def text(seed: int) -> np.ndarray:
    return np.random.default_rng([9, seed]).normal(size=TEXT_DIM).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_text", [True, False])
def test_its_vector_is_that_of_the_network(home: Path, kind: str, with_text: bool) -> None:
    engine, bundle = Engine.open(home / "serving"), Bundle.load(home / "bundle")
    dense = engine.put_item(NewItem("new", KINDS[kind], text(1) if with_text else None))
    assert dense == N_ITEMS
    assert engine.item_index["new"] == dense
    row = {"item_id": "new", "title": None, "genres": None, "price": np.nan, "text": "some" if with_text else None} | KINDS[kind]
    row["price"] = float(row["price"])
    items = pd.concat([bundle.items, pd.DataFrame([row]).astype(object)], ignore_index=True)
    given = np.zeros((N_ITEMS + 1, TEXT_DIM), np.float32)
    given[-1] = text(1)
    other: Any = bundle.reindex(items, Vectors.of_text(given, np.arange(N_ITEMS + 1) == (N_ITEMS if with_text else -1)))
    wanted = other.item_vectors().numpy()
    np.testing.assert_allclose(engine.catalogue.vectors, wanted, atol=1e-5)
    closed = VectorMoments(wanted)
    np.testing.assert_allclose(engine.catalogue.mean, closed.mean, atol=1e-6)
    np.testing.assert_allclose(engine.catalogue.covariance, closed.covariance, atol=1e-6)


def test_an_item_without_factors_is_ranked_as_by_the_night(tmp_path: Path) -> None:
    """Scores of the others stay; mean and spread count the new one, and so does its event, by which the others age."""
    bundle = Bundle.load(serving_bundle(tmp_path / "bundle", scorers=("als",)))
    write_serving(bundle.folder, tmp_path / "serving")
    engine = Engine.open(tmp_path / "serving")
    query = Query(["i3", "i9", "new 1", "i3", "new 0"], [START] * 5, request_time=START + 5)
    for number in range(2):
        engine.put_item(NewItem(f"new {number}", {"genres": "red"}, None))
    rows = [{"item_id": f"new {number}", "title": None, "genres": "red", "price": np.nan, "text": None} for number in range(2)]
    items = pd.concat([bundle.items, pd.DataFrame(rows).astype(object)], ignore_index=True)
    without = Vectors.of_text(np.zeros((N_ITEMS + 2, TEXT_DIM), np.float32), np.zeros(N_ITEMS + 2, dtype=bool))
    other: Any = bundle.reindex(items, without)
    histories = engine._read(query)
    scores = np.empty(N_ITEMS + 2, np.float32)
    engine.members["als"].score(histories, scores)
    np.testing.assert_allclose(scores, other.scorers["als"].scores(histories)[0], atol=1e-5, rtol=0)
    assert not scores[-2:].any()
    _, closed = other.scorers["als"].candidate_scores(histories, np.arange(N_ITEMS + 2)[None])
    np.testing.assert_allclose(moments(scores)[:2], [closed.mean[0], closed.std[0]], rtol=1e-5)
    ranked, found = engine.recommend(query, N_ITEMS + 2, exclude_seen=False)
    np.testing.assert_allclose(found, other.scores(histories)[0, ranked], atol=1e-4)
    engine.apply("ann", "new 0", 1, START, positive=True)
    again = np.empty(N_ITEMS + 2, np.float32)
    engine.members["als"].score(histories, again)
    np.testing.assert_array_equal(again, scores)


@pytest.mark.parametrize("scorers", [("als", "popularity"), ("als", "popularity", "text_neighbours", "graph")], ids=["alone", "neighbours"])
def test_what_is_expected_of_an_item_is_what_the_night_expects(tmp_path: Path, scorers: tuple[str, ...]) -> None:
    bundle = Bundle.load(serving_bundle(tmp_path / "bundle", scorers=scorers))
    write_serving(bundle.folder, tmp_path / "serving")
    engine, als, popularity = Engine.open(tmp_path / "serving"), *(bundle.recommender.scorers[name] for name in ("als", "popularity"))
    assert isinstance(als, ALS)
    assert isinstance(popularity, Popularity)
    before = np.exp(popularity.base.values) - 1
    for number in range(5):
        engine.put_item(NewItem(f"new {number}", {}, None if number == 2 else text(number)))
    assert engine._texts is not None
    unit = torch.from_numpy(engine._texts._unit.array.copy())
    known = np.append(popularity.counts > 0, np.zeros(5, dtype=bool))
    assert (before[~known[:N_ITEMS]] > 0).any(), "so does the night, of items that nobody has acted on"
    scores = np.empty((2, N_ITEMS + 5), np.float32)
    vectors = engine.members["als"]._vectors.array  # type: ignore[attr-defined]
    engine.members["popularity"].score(engine._read(Query()), scores[0])
    for item in range(N_ITEMS, N_ITEMS + 5):
        _, target, cosines = strongest((unit[item, None] @ unit[: item + 1].T).numpy(), item, NEIGHBOURS)  # of those that were there
        near, weights = target[known[target]], cosines[known[target]] ** 2
        np.testing.assert_allclose(vectors[item, :-1], expected(weights, als.vectors[near, :-1]), atol=1e-5)
        assert scores[0, item] == pytest.approx(expected(weights, np.log1p(popularity.counts[near])[:, None])[0], abs=1e-5)
        assert (scores[0, item] > 0) == (item != N_ITEMS + 2)
    query = Query(["i3", "new 0", "i9"], [START] * 3, request_time=START + 5)
    items = pd.concat([bundle.items, pd.DataFrame([{"item_id": f"new {number}"} for number in range(5)]).astype(object)], ignore_index=True)
    other: Any = bundle.reindex(items, None).scorers["als"]
    other.vectors[N_ITEMS:] = vectors[N_ITEMS:]
    engine.members["als"].score(engine._read(query), scores[1])
    np.testing.assert_allclose(scores[1], other.scores(engine._read(query))[0], atol=1e-5)


def test_a_copy_is_expected_to_be_liked_as_what_it_copies_and_its_first_event_does_not_take_it_down(home: Path) -> None:
    engine, content = Engine.open(home / "serving"), Bundle.load(home / "bundle").recommender.content
    counts = engine.members["popularity"]._counts.array.copy()  # type: ignore[attr-defined]
    best = int(np.argmax(np.where(content.has_text.numpy(), counts[:N_ITEMS], 0)))

    def score(dense: int) -> float:
        scores = np.empty(len(engine.catalogue), np.float32)
        engine.members["popularity"].score(engine._read(Query()), scores)
        return float(scores[dense])

    near, far = engine.put_item(NewItem("copy", {}, content.text[best].numpy())), engine.put_item(NewItem("none", {}, None))
    assert score(near) == pytest.approx(np.log1p(counts[best]), rel=0.01)
    assert score(far) == 0
    before = score(near)
    engine.apply("ann", "copy", 1, START, positive=True)
    assert score(near) == before
    for number in range(3 * int(counts[best])):
        engine.apply(f"u{number}", "copy", 1, START + number, positive=True)
    assert score(near) == pytest.approx(np.log1p(3 * int(counts[best]) + 1))
    engine.put_item(NewItem("none", {}, content.text[best].numpy()))
    assert score(far) > before / 2, "its text came later"


def test_many_are_put_and_all_is_still_answered(home: Path) -> None:
    engine = Engine.open(home / "serving")
    users = [f"user {number}" for number in range(5)]
    for user in users:
        engine.recommend_user(user, 5)
    for number in range(200):
        assert engine.put_item(NewItem(f"new {number}", {"genres": "red"}, text(number))) == N_ITEMS + number
        engine.apply(users[number % 5], f"new {number}", 1, START + number, positive=True)
    query = Query(["new 3", "i1", "new 150"], [START, START + 1, START + 2])
    items, scores = engine.recommend(query, 1000)
    assert sorted(items.tolist()) == sorted({*range(N_ITEMS + 200)} - {engine.item_index[item] for item in query.history})
    assert np.isfinite(scores).all()
    assert len(engine.item_ids) == N_ITEMS + 200
    np.testing.assert_allclose(engine.catalogue.covariance, VectorMoments(engine.catalogue.vectors).covariance, atol=1e-6)


def neighbours(engine: Engine) -> tuple[dict[int, dict[int, float]], dict[int, dict[int, float]]]:
    """Neighbours by text of each item as they stand, and by a new search: item -> neighbour -> squared cosine."""
    assert engine._texts is not None
    unit = engine._texts._unit.array
    edges = engine.members["text_neighbours"].edges  # type: ignore[attr-defined]
    stands = {row: dict(zip(*(side.tolist() for side in edges.row(row)), strict=True)) for row in range(len(unit))}
    searched: dict[int, dict[int, float]] = {row: {} for row in stands}
    for source, target, cosine in zip(*strongest(unit @ unit.T, 0, engine._texts.neighbours), strict=True):
        searched[int(source)][int(target)] = float(cosine) ** 2
    return stands, searched


def test_neighbours_by_text_are_those_of_a_new_search(home: Path) -> None:
    engine = Engine.open(home / "serving")
    for number in range(40):
        engine.put_item(NewItem(f"new {number}", {}, None if number % 5 == 0 else text(number)))
    stands, searched = neighbours(engine)
    for row, wanted in searched.items():
        assert stands[row] == pytest.approx(wanted, abs=HALF), row
    changed = engine.put_item(NewItem("new 7", {}, text(1000)))  # once more, with another text
    stands, searched = neighbours(engine)
    assert stands[changed] == pytest.approx(searched[changed], abs=HALF)
    for row, wanted in searched.items():
        if changed in wanted:
            assert stands[row][changed] == pytest.approx(wanted[changed], abs=HALF)


def test_whoever_reads_what_is_near_is_shown_it(tmp_path: Path) -> None:
    write_serving(serving_bundle(tmp_path / "bundle", scorers=("text_neighbours",)), tmp_path / "serving")
    engine = Engine.open(tmp_path / "serving")
    content = Bundle.load(tmp_path / "bundle").recommender.content
    near = int(np.flatnonzero(content.has_text.numpy())[0])
    dense = engine.put_item(NewItem("new", {}, content.text[near].numpy()))
    scores = np.empty(N_ITEMS + 1, np.float32)
    engine.members["text_neighbours"].score(engine._read(Query([f"i{near}"])), scores)
    assert int(scores.argmax()) == dense
    assert scores[dense] == pytest.approx(1, abs=1e-4)


def test_a_removed_item_is_not_recommended_until_it_is_put_again(home: Path) -> None:
    engine, query = Engine.open(home / "serving"), some_query(5)
    before = engine.recommend(query, 20)
    best = engine.item_ids[before[0][0]]
    assert engine.remove_item(best)
    assert not engine.remove_item(best)
    assert not engine.remove_item("nothing")
    assert engine.item_index[best] not in engine.recommend(query, N_ITEMS)[0]
    assert len(engine.recommend(query, 3, candidates=np.array([engine.item_index[best]]))[0]) == 0
    assert engine.item_index[best] not in engine.similar([1], N_ITEMS)[0]
    engine.put_item(NewItem(best, {}, text(3)))  # training knew it: its vector stays
    for one, other in zip(engine.recommend(query, 20), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_item_of_the_day_may_be_changed(home: Path) -> None:
    engine = Engine.open(home / "serving")
    engine.put_item(NewItem("new", {}, text(1)))
    engine.apply("ann", "new", 1, START, positive=True)
    former = engine.recommend_user("ann", 20, now=START + 5)
    engine.put_item(NewItem("new", {"genres": "red"}, text(2)))
    now = engine.recommend_user("ann", 20, now=START + 5)
    assert (now[1] != former[1]).any()
    wanted = engine.recommend(Query(["new"], [START], request_time=START + 5), 20)
    np.testing.assert_allclose(now[1], wanted[1], atol=1e-5)


@pytest.mark.parametrize("given", [np.zeros(TEXT_DIM + 1, np.float32), np.full(TEXT_DIM, np.nan, np.float32)], ids=["width", "NaN"])
def test_a_vector_of_another_encoder_is_refused(home: Path, given: np.ndarray) -> None:
    engine = Engine.open(home / "serving")
    with pytest.raises(InputError, match="item new: its text vector"):
        engine.put_item(NewItem("new", {}, given))
    assert "new" not in engine.item_index
    assert len(engine.recommend(some_query(5), 5)[0]) == 5


def test_similar_items(home: Path) -> None:
    engine = Engine.open(home / "serving")
    vectors = torch.nn.functional.normalize(torch.from_numpy(engine.catalogue.vectors.copy())).numpy()
    for seeds in ([3], [3, 90, 12]):
        items, scores = engine.similar(seeds, 10)
        cosines = vectors @ vectors[seeds].mean(0)
        cosines[seeds] = -np.inf
        wanted = np.argsort(-cosines, kind="stable")[:10]
        np.testing.assert_array_equal(items, wanted)
        np.testing.assert_allclose(scores, cosines[wanted], atol=1e-5)
    assert engine.similar([3], 5, allowed=np.arange(N_ITEMS) == 8)[0].tolist() == [8]


def test_a_number_that_is_none_is_refused(home: Path) -> None:
    engine = Engine.open(home / "serving")
    with pytest.raises(InputError, match="item new: price: 'cheap' is no number"):
        engine.put_item(NewItem("new", {"price": "cheap"}, text(1)))
    assert "new" not in engine.item_index
