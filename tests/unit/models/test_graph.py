from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories
from nightloom.models.scorers.graph import TransitionGraph
from nightloom.models.scorers.item_graph import ItemGraph


def strengths(graph: ItemGraph, lists: list[list[int]]) -> np.ndarray:
    """What the edges alone say, without the trace of popularity: float32 [queries, items]."""
    keys, values = graph.summands(Histories.of_items(lists))
    return np.bincount(keys, values, minlength=len(lists) * graph.n_items).reshape(len(lists), -1).astype(np.float32)


def test_steps_are_weighted_by_distance_direction_and_popularity() -> None:
    graph = TransitionGraph(reach=2, decay=0.7, backward=0.5).fit(Histories.of_items([[0, 1, 2], [0, 1]]), 4)
    found = strengths(graph, [[0], [1], [2], []])
    seen = np.array([2, 2, 1])
    expected = np.array([[0, 2, 0.7], [1, 0, 1], [0.35, 0.5, 0]]) / np.sqrt(seen[:, None] * seen[None, :])
    np.testing.assert_allclose(found[:3, :3], expected, rtol=1e-6)
    assert not found[3].any()


def test_recent_events_weigh_more() -> None:
    graph = TransitionGraph(recency=0.7, reach=1, backward=0).fit(Histories.of_items([[0, 2], [1, 3]]), 4)
    np.testing.assert_allclose(strengths(graph, [[0, 1]])[0, 2:], [0.7, 1.0], rtol=1e-6)


def test_empty_histories_are_answered_by_popularity_and_unseen_items_by_nothing() -> None:
    graph = TransitionGraph().fit(Histories.of_items([[0, 1], [1, 2], [1]]), 4)
    items, scores = graph.recommend(Histories.of_items([[]]), 4)
    assert items[0].tolist() == [1, 0, 2, -1]
    assert np.isneginf(scores[0, 3])


def test_only_positive_events_are_stepped_to() -> None:
    histories = Histories.of_items([[0, 1]])
    histories.positive[1] = False
    found = strengths(TransitionGraph().fit(histories, 2), [[0], [1]])
    assert found[0, 1] == 0
    assert found[1, 0] > 0


def test_many_blocks_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    lists = [random.integers(0, 20, random.integers(0, 9)).tolist() for _ in range(30)]
    graph = TransitionGraph().fit(Histories.of_items(lists), 20)
    whole = graph.scores(Histories.of_items(lists))
    monkeypatch.setattr("nightloom.models.scorers.sparse.BLOCK_CELLS", 50)
    np.testing.assert_allclose(graph.scores(Histories.of_items(lists)), whole, rtol=1e-6)


def test_it_comes_back_from_disk_and_is_reindexed(tmp_path: Path) -> None:
    graph = TransitionGraph().fit(Histories.of_items([[0, 1, 2], [2, 0, 3], [3, 1]]), 4)
    graph.save(tmp_path)
    ask = Histories.of_items([[0, 2], [3], []])
    scores = graph.scores(ask)
    np.testing.assert_array_equal(TransitionGraph.load(tmp_path).scores(ask), scores)
    rows = np.array([4, 0, 2, -1])  # item 3 is gone, item 1 and 3 of the other catalogue are new
    other = graph.reindex(rows, 5).scores(Histories.of_items([[4, 2]]))
    np.testing.assert_allclose(other[0, [4, 0, 2]], scores[0, [0, 1, 2]], rtol=1e-6)
    assert np.isneginf(other[0, [1, 3]]).all()


def test_no_events_at_all() -> None:
    graph = TransitionGraph().fit(Histories.of_items([[], []]), 3)
    assert np.isneginf(graph.scores(Histories.of_items([[], [1]]))).all()


def test_how_often_items_were_seen_is_kept(tmp_path: Path) -> None:
    histories = replace(Histories.of_items([[0, 1, 2], [2, 0, 2]]), positive=np.array([True, False, True, True, True, False]))
    TransitionGraph().fit(histories, 4).save(tmp_path)
    graph = TransitionGraph.load(tmp_path)
    assert graph.seen is not None
    assert graph.seen.tolist() == [2, 1, 3, 0]
    raw = graph.weights * np.sqrt(graph.seen[owners(graph.offsets)] * graph.seen[graph.targets])
    assert raw[(owners(graph.offsets) == 2) & (graph.targets == 0)].tolist() == pytest.approx([1 + 0.5 + 0.5 * 0.7], abs=1e-6)
    moved = graph.reindex(np.array([1, -1, 0, 2]), 4)
    assert moved.seen is not None
    assert moved.seen.tolist() == [3, 2, 0, 0]


def test_no_step_of_few_people_is_kept() -> None:
    """Five people go from 0 to 1, three and one of them twice from 1 to 2: a fourth event makes no fourth person."""
    lists = [[0, 1, 2]] * 2 + [[0, 1, 2, 1, 2], [0, 1], [0, 1]]
    graph = TransitionGraph(reach=1, min_support=4).fit(Histories.of_items(lists), 3)
    assert set(zip(owners(graph.offsets).tolist(), graph.targets.tolist(), strict=True)) == {(0, 1), (1, 0)}
    whole = TransitionGraph(reach=1).fit(Histories.of_items(lists), 3)
    np.testing.assert_array_equal(strengths(graph, [[0]])[0, 1], strengths(whole, [[0]])[0, 1])
    np.testing.assert_array_equal(graph.popularity, whole.popularity)
    assert strengths(TransitionGraph(reach=1, min_support=3).fit(Histories.of_items(lists), 3), [[1]])[0, 2] > 0


def test_support_is_counted_as_by_hand() -> None:
    random = np.random.default_rng(3)
    histories = Histories.of_items([random.integers(0, 15, random.integers(0, 12)).tolist() for _ in range(60)])
    histories.positive[:] = random.random(len(histories.items)) < 0.7
    takers: dict[tuple[int, int], set[int]] = {}
    for user in range(len(histories)):
        rows = range(histories.offsets[user], histories.offsets[user + 1])
        for i in rows:
            for j in rows:
                if 0 < abs(i - j) <= 3 and histories.positive[j] and histories.items[i] != histories.items[j]:
                    takers.setdefault((int(histories.items[i]), int(histories.items[j])), set()).add(user)
    graph = TransitionGraph(min_support=5).fit(histories, 15)
    found = set(zip(owners(graph.offsets).tolist(), graph.targets.tolist(), strict=True))
    assert found == {edge for edge, users in takers.items() if len(users) >= 5}
    assert 0 < len(found) < len(takers)
