"""New items for the eleventh place: scored by the ranking of the list, and found as long as they have few events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nightloom.core.queries import Query
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.items.fresh_items import FAMILIAR, LATEST_NEW, FreshItems
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.model import retrieval
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.ranker import Answer, Others
from nightloom.serving.new_place import with_new
from tests.serving_bundle import N_ITEMS, START, serving_bundle, some_query


def engines_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Engine], Bundle]:
    """The same model that looks for candidates and that scores all, and its bundle."""
    monkeypatch.setattr("nightloom.serving.model.ranker.MOST", 1)
    monkeypatch.setattr(retrieval, "CANDIDATES", 60)
    monkeypatch.setattr(retrieval, "POPULAR", 10)
    write_serving(serving_bundle(folder / "bundle", reranker=True, penalty=2.0), folder / "serving")
    engines = [Engine.open(folder / "serving", large=large) for large in (N_ITEMS - 1, N_ITEMS)]
    return engines, Bundle.load(folder / "bundle")


def test_new_items_have_their_scores_by_the_same_ranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines, bundle = engines_of(tmp_path, monkeypatch)
    content = bundle.recommender.content
    texts = np.flatnonzero(content.has_text.numpy())[:8]
    for engine in engines:
        for number, text in enumerate(texts.tolist()):
            engine.put_item(NewItem(f"new {number}", {}, content.text[text].numpy()))
        assert sorted(engine.near_new(Query(), range(N_ITEMS))) == [*range(N_ITEMS, N_ITEMS + 8)]
        engine.remove_item("new 2")
        engine.block_item(N_ITEMS + 3, blocked=True)
    whole = np.ones(N_ITEMS + 8, dtype=np.bool_)
    whole[N_ITEMS + 4] = False
    query = some_query(12)
    query = replace(query, history=[*query.history[:-1], "new 5"])

    def new(_: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.arange(N_ITEMS, N_ITEMS + 8)

    for engine in engines:
        scored = dict(zip(*(one.tolist() for one in engine.recommend(query, N_ITEMS + 8)), strict=True))
        items, scores = engine.recommend(query, 3, allowed=whole, also=new)
        alone = engine.recommend(query, 3, allowed=whole)
        np.testing.assert_array_equal(items[:3], alone[0])
        np.testing.assert_array_equal(scores[:3], alone[1])
        assert {*items[3:].tolist()} == {N_ITEMS + number for number in (0, 1, 6, 7)} - {*items[:3].tolist()}
        assert scores[3:].tolist() == pytest.approx([scored[item] for item in items[3:].tolist()], abs=1e-4)
    few = np.arange(N_ITEMS + 8) == N_ITEMS + 1  # so few that retrieval scores them alone
    for engine in engines:
        assert engine.recommend(query, 1, allowed=few, also=new)[0].tolist() == [N_ITEMS + 1]


def test_of_a_day_of_many_new_items_few_are_scored(tmp_path: Path) -> None:
    bundle = serving_bundle(tmp_path / "bundle", scorers=("popularity",))
    write_serving(bundle, tmp_path / "serving")
    engine, content = Engine.open(tmp_path / "serving"), Bundle.load(bundle).recommender.content
    text = content.text[int(np.flatnonzero(content.has_text.numpy())[0])].numpy()
    for number in range(3 * LATEST_NEW):
        engine.put_item(NewItem(f"new {number}", {}, text))
    query, asked = some_query(12), list[int]()

    def rank(many: int, also: Others | None) -> Answer:
        items, scores = engine.recommend(query, many, also=also)
        asked.append(len(items) - many)
        return items, scores

    marks = np.arange(len(engine.item_ids), dtype=np.uint32)
    found, _, new = with_new(engine, query, rank, 10, (), marks)
    assert new is None
    whole, scores, new = with_new(engine, query, rank, N_ITEMS, (), marks)
    assert asked[0] == 0
    assert 0 < asked[1] <= 2 * LATEST_NEW, "of 300"
    assert whole[:10] == found
    assert new is not None
    assert whole[10] == new
    assert len(whole) == len(scores) == N_ITEMS


def test_an_event_that_is_taken_back_does_not_count(tmp_path: Path) -> None:
    bundle = serving_bundle(tmp_path / "bundle", scorers=("popularity", "text_neighbours"))
    write_serving(bundle, tmp_path / "serving")
    engine, content = Engine.open(tmp_path / "serving"), Bundle.load(bundle).recommender.content
    near = int(np.flatnonzero(content.has_text.numpy())[0])
    new = engine.put_item(NewItem("new", {}, content.text[near].numpy()))

    def found() -> bool:
        return new in engine.near_new(Query(), range(N_ITEMS))

    for number in range(FAMILIAR - 1):
        engine.apply(f"u{number}", "new", 1, START, positive=True)
    for _ in range(3):  # as a repeat that the rules count anew
        assert found()
        assert engine.retract("u1", "new", 1, START)
        assert not engine.retract("u1", "new", 1, START)
        engine.apply("u1", "new", 1, START, positive=True)
    engine.apply("one more", "new", 1, START, positive=True)
    assert not found()
    engine.retract("one more", "new", 1, START)
    assert found()
    engine.remove_item("new")
    engine.retract("u1", "new", 1, START)
    assert not found()


def test_a_day_of_many_new_items_is_looked_at_in_part() -> None:
    fresh = FreshItems()
    for number in range(3 * LATEST_NEW):
        fresh.put(1000 + number, np.array([7]), np.array([0.5], np.float32))
    assert list(fresh.nearest([7, 8])) == [*range(999 + 3 * LATEST_NEW, 999 + 2 * LATEST_NEW, -1)]
