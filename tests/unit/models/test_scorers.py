from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories, Links
from nightloom.models.baselines.ease import EASE
from nightloom.models.scorers.cooccurrence import Cooccurrence
from nightloom.models.scorers.friends import STRANGER, Friends
from nightloom.models.scorers.linear import Linear
from nightloom.models.scorers.registry import CLASSES
from nightloom.models.scorers.repeats import Repeats
from nightloom.models.scorers.score_fusion import NETWORK, fuse, standard
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.models.scorers.trend import EVENTS_AN_ITEM, Trend, weight_of
from tests.unit.models.test_graph import strengths

lists = st.lists(st.lists(st.integers(0, 7), max_size=12), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40)
@given(lists, st.sampled_from([20, 1 << 22]))
def test_pairs_are_counted_by_users_whatever_the_block(histories: list[list[int]], cells: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nightloom.models.scorers.sparse.BLOCK_CELLS", cells)
        found = Cooccurrence(shrink=2, recency=1).fit(Histories.of_items(histories), 8)
    interacted = np.zeros((len(histories), 8))
    for row, one in enumerate(histories):
        interacted[row, one] = 1
    both, users = interacted.T @ interacted, interacted.sum(0)
    expected = both / (users + 2)[:, None] * ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(strengths(found, [[item] for item in range(8)]), expected, rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(lists, st.sampled_from([20, 1 << 22]), st.integers(1, 4), st.integers(1, 3))
def test_of_few_pairs_the_same_edges_are_found_without_a_table(histories: list[list[int]], cells: int, k: int, support: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nightloom.models.scorers.sparse.BLOCK_CELLS", cells)
        found = []
        for sparse in (0, 10**9):  # always and never
            patch.setattr("nightloom.models.scorers.cooccurrence.SPARSE", sparse)
            found.append(Cooccurrence(neighbours=k, min_support=support).fit(Histories.of_items(histories), 8))
    for name in ("offsets", "targets", "weights", "popularity"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))


@settings(deadline=None, max_examples=40)
@given(lists, st.sampled_from([20, 1 << 22]))
def test_over_pairs_that_people_chose_it_is_the_linear_baseline(histories: list[list[int]], cells: int) -> None:
    train, every = Histories.of_items(histories), [[item] for item in range(8)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nightloom.models.scorers.sparse.BLOCK_CELLS", cells)
        found = strengths(Linear(l2=3).fit(train, 8), every)
    baseline = EASE(l2=3).fit(train, 8)
    expected = np.zeros((8, 8))
    expected[np.ix_(baseline.seen, baseline.seen)] = baseline.weights
    together = np.array([[any({a, b} <= set(one) for one in histories) for a in range(8)] for b in range(8)])
    expected[~together] = 0  # what nobody has both chosen is no edge
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_only_the_weights_furthest_from_zero_of_the_items_chosen_most_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Histories.of_items([[0, 1], [0, 1], [0, 1, 4], [2, 3], [2, 1], [2, 0]])
    whole, kept = Linear(l2=1).fit(train, 5), Linear(l2=1, neighbours=1).fit(train, 5)
    assert (np.diff(kept.offsets) <= 1).all()
    for item in range(5):
        far = np.abs(whole.weights[whole.offsets[item] : whole.offsets[item + 1]]).max()
        assert abs(kept.weights[kept.offsets[item]]) == far
    monkeypatch.setattr("nightloom.models.scorers.linear.MOST_ITEMS", 3)
    few = Linear(l2=1).fit(train, 5)
    assert set(few.targets.tolist()) | set(owners(few.offsets).tolist()) == {0, 1, 2}


def test_only_the_latest_and_positive_events_are_counted() -> None:
    histories = Histories.of_items([[0, 1, 2]])
    histories.positive[1] = False
    assert not strengths(Cooccurrence(span=2).fit(histories, 3), [[0], [1], [2]]).any()
    assert strengths(Cooccurrence(span=3).fit(histories, 3), [[0]])[0].argmax() == 2


def test_only_the_strongest_edges_are_kept() -> None:
    train = Histories.of_items([[0, 1], [0, 1], [0, 2], [0, 3, 1]])
    assert np.flatnonzero(strengths(Cooccurrence(neighbours=1).fit(train, 4), [[0]])[0]).tolist() == [1]


def test_neighbours_by_text_need_no_events_and_pass_over_items_without_text() -> None:
    torch.manual_seed(0)
    text, has_text = torch.randn(6, 4), torch.tensor([True] * 5 + [False])
    text[1] = text[0] + 0.01
    model = TextNeighbours(neighbours=2).read(text, has_text)
    scores = model.scores(Histories.of_items([[0], [5], []]))
    assert scores[0].argmax() == 1
    assert np.isneginf(scores[:, 5]).all()
    assert (scores[1:, :5].max(1) < 1e-3).all()


def test_what_was_consumed_often_comes_first() -> None:
    histories = Histories.of_items([[3, 1, 3, 0]])
    histories.positive[3] = False
    assert Repeats().fit(histories, 4).scores(histories)[0].tolist() == pytest.approx([0, np.log(2), 0, np.log(3)])


def at(days: list[float], items: list[int]) -> Histories:
    histories = Histories.of_items([items])
    return replace(histories, times=(np.array(days) * 86_400).astype(np.int64))


def test_a_half_life_ago_an_event_counts_half() -> None:
    days = [100.0] * (3 * EVENTS_AN_ITEM - 1) + [106.9, 93.2]
    items = [0] * (len(days) - 2) + [1, 2]
    model = Trend().fit(at(days, items), 3)
    assert (model.day, model.half_life) == (106, 7), "the time of the latest two events an item, last day included"
    assert np.expm1(model.scores(Histories.of_items([[]]))[0]) == pytest.approx([0.5 ** (6 / 7) * (len(days) - 2), 1, 0.5 ** (13 / 7)])


@given(st.integers(-(1 << 40), 1 << 50), st.integers(-100_000, 100_000), st.floats(1, 1e6))
def test_an_event_of_any_year_counts_something_and_no_more_than_one_of_the_last_day(time: int, day: int, half_life: float) -> None:
    assert 0 < weight_of(np.array(time), day, half_life) <= 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 400), st.integers(0, 5)), min_size=1, max_size=60), st.integers(0, 10_000))
def test_a_trend_does_not_know_what_day_or_what_time_of_the_day_it_is(events: list[tuple[float, int]], later: int) -> None:
    days, items = [day for day, _ in events], [item for _, item in events]
    nobody = Histories.of_items([[]])
    wanted = Trend().fit(at(days, items), 6).scores(nobody)
    np.testing.assert_array_equal(Trend().fit(at([np.floor(day) + later for day in days], items), 6).scores(nobody), wanted)


def test_friends_vote_by_how_alike_they_are() -> None:
    known = Histories.of_items([[0, 1, 2], [3, 0], [4, 4]])
    queries = Histories.of_items([[0, 1], [0, 1], []])
    links = Links(np.array([0, 3, 3, 4]), np.array([0, 1, 2, 2]), known)
    scores = Friends().fit(known, 6).scores(replace(queries, links=links))
    likeness = [2 / np.sqrt(2 * 3), 1 / np.sqrt(2 * 2), 0]
    expected = [likeness[0] + likeness[1], likeness[0], likeness[0], likeness[1], likeness[2], 0]
    expected = [vote + STRANGER * many for vote, many in zip(expected, [2, 1, 1, 1, 1, 0], strict=True)]
    assert scores[0].tolist() == pytest.approx(expected)
    assert not scores[1].any()  # nobody is linked to the second
    assert scores[2].tolist() == pytest.approx([0, 0, 0, 0, STRANGER, 0])  # a friend without a history of one's own
    assert not Friends().fit(known, 6).scores(queries).any()


def test_links_stay_with_their_users() -> None:
    known = Histories.of_items([[0], [1], [2]])
    queries = replace(Histories.of_items([[0], [1], [2]]), links=Links(np.array([0, 1, 1, 3]), np.array([2, 0, 1]), known))
    model = Friends().fit(known, 3)
    for rows in ([2, 0], [1], [0, 1, 2]):
        np.testing.assert_allclose(model.scores(queries.take(np.array(rows))), model.scores(queries)[rows])


@pytest.mark.parametrize("name", [*CLASSES])
def test_they_come_back_from_disk_and_are_reindexed(name: str, tmp_path: Path) -> None:
    train = Histories.of_items([[0, 1, 2], [2, 0, 3], [3, 1]])
    model = CLASSES[name]()
    if isinstance(model, TextNeighbours):
        torch.manual_seed(0)
        model.read(torch.randn(4, 6), torch.ones(4, dtype=torch.bool))
    model.fit(train, 4).save(tmp_path)
    ask = Histories.of_items([[0, 2], [1], []])
    scores = model.scores(ask)
    np.testing.assert_array_equal(CLASSES[name].load(tmp_path).scores(ask), scores)
    other = model.reindex(np.array([4, 0, 2, -1]), 5).scores(Histories.of_items([[4, 2], [0], []]))  # item 3 is gone, 1 and 3 are new
    np.testing.assert_allclose(other[:, [4, 0, 2]], scores[:, [0, 1, 2]], atol=1e-6)
    assert (other[:, [1, 3]] <= other[:, [4, 0, 2]].min(1, keepdims=True)).all()


@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 99))
def test_scores_are_standardised_query_by_query(queries: int, items: int, seed: int) -> None:
    scores = np.random.default_rng(seed).permuted(np.tile(np.arange(items, dtype=np.float32), (queries, 1)), axis=1)
    found = standard(scores)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(1), 1, rtol=1e-3)
    np.testing.assert_allclose(fuse({NETWORK: found, "a": found}, {"a": 0.4}), found, rtol=1e-4, atol=1e-5)
    hidden = scores.copy()
    hidden[:, 0] = -np.inf
    assert (standard(hidden)[:, 0] <= standard(hidden).min(1)).all()


def test_no_pair_of_few_people_is_kept() -> None:
    lists = [[0, 1, 2]] * 4 + [[0, 1]]
    for scorer in (Cooccurrence(min_support=5), Linear(l2=1, min_support=5)):
        found = scorer.fit(Histories.of_items(lists), 3)
        assert set(zip(owners(found.offsets).tolist(), found.targets.tolist(), strict=True)) == {(0, 1), (1, 0)}
