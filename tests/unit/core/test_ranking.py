"""Ranks and lists against a plain sort of every row."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from nightloom.core import ranking
from nightloom.core.errors import NightloomError
from nightloom.core.metrics import per_query
from nightloom.core.ranking import held_out_mask, ndcg_of_scores, ndcg_sum, ranks
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories, Queries
from nightloom.models.baselines.named import build
from nightloom.packaging.bundle import Bundle
from tests.serving_bundle import N_ITEMS, known_histories, serving_bundle


class Given(Recommender):
    """Answers query i with row i of a matrix; the first item of a history says which."""

    family = "given"

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix, self.n_items = matrix.astype(np.float32), matrix.shape[1]

    def fit(self, train: Histories, n_items: int) -> Self:
        return self

    def scores(self, histories: Histories) -> np.ndarray:
        return self.matrix[histories.request_time].copy()

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        raise NotImplementedError


def ask(histories: list[list[int]], targets: list[list[int]]) -> Queries:
    known = Histories.of_items(histories)
    known.request_time[:] = np.arange(len(known))
    held = Histories.of_items(targets)
    return Queries(np.arange(len(known)), known, held.offsets, held.items)


def by_sorting(row: np.ndarray, seen: list[int]) -> list[int]:
    """Rankable items, best first, ties by id."""
    return [item for item in sorted(range(len(row)), key=lambda item: (-row[item], item)) if item not in seen and row[item] > -np.inf]


scores = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 1.0, 7.0])  # few values, so that ties are common


@given(st.data())
def test_ranks_and_lists_are_those_of_a_stable_sort(data: st.DataObject) -> None:
    n, n_items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 25))
    matrix = data.draw(arrays.arrays(np.float64, (n, n_items), elements=scores))
    some = st.lists(st.integers(0, n_items - 1), max_size=4, unique=True)
    histories, targets = data.draw(st.lists(some, min_size=n, max_size=n)), data.draw(st.lists(some, min_size=n, max_size=n))
    exclude_seen = data.draw(st.booleans())
    found = ranks(Given(matrix), ask(histories, targets), exclude_seen=exclude_seen, batch=data.draw(st.integers(1, 4)))
    at = 0
    for query in range(n):
        order = by_sorting(matrix[query], histories[query] if exclude_seen else [])
        for target in targets[query]:
            assert found.ranks[at] == (order.index(target) + 1 if target in order else 0)
            at += 1
        assert [item for item in found.top[query].tolist() if item >= 0] == order[:20]


def test_what_can_not_be_ranked_has_rank_zero() -> None:
    matrix = np.array([[3.0, -np.inf, -np.inf, 1.0, 2.0]])
    found = ranks(Given(matrix), ask([[0]], [[0, 1, 2, 3, 4]]))
    assert found.ranks.tolist() == [0, 0, 0, 2, 1]
    assert found.top.tolist() == [[4, 3, -1, -1, -1]]
    assert ranks(Given(matrix), ask([[0]], [[0]]), exclude_seen=False).ranks.tolist() == [1]


def test_scores_that_are_no_numbers_are_refused_by_name() -> None:
    matrix = np.array([[3.0, np.nan, 2.0], [3.0, 1.0, 2.0], [np.nan, np.nan, np.nan]])
    queries = ask([[0], [], []], [[2], [1], [0]])
    with pytest.raises(NightloomError, match=r"^given: the scores of 2 of 3 queries hold NaN"):
        ranks(Given(matrix), queries, batch=1)
    with pytest.raises(NightloomError, match=r"^champion: the scores of 2 of 3 queries hold NaN"):
        ranks(Given(matrix), queries, name="champion")


@given(st.data())
def test_ndcg_of_a_few_items_refuses_nan_and_is_never_above_one(data: st.DataObject) -> None:
    n, n_items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    matrix = data.draw(arrays.arrays(np.float32, (n, n_items), elements=st.sampled_from([-np.inf, 0.0, 1.0, 7.0, np.nan])))
    some = st.lists(st.integers(0, n_items - 1), min_size=1, max_size=n_items, unique=True)
    queries = ask([[]] * n, data.draw(st.lists(some, min_size=n, max_size=n)))
    broken = int(np.isnan(matrix).any(1).sum())
    if broken:
        with pytest.raises(NightloomError, match=rf"^network: the scores of {broken} of {n} queries hold NaN"):
            ndcg_sum(matrix, queries, exclude_seen=True, model="network")
    else:
        assert ndcg_sum(matrix, queries, exclude_seen=True, model="network") <= n
        assert ndcg_of_scores(matrix, held_out_mask(queries, n_items), np.diff(queries.target_offsets)).max() <= 1


@given(st.permutations(range(1, 21)), st.integers(1, 20))
def test_a_perfect_list_has_a_metric_of_one_whatever_the_order_of_its_rows(order: list[int], many: int) -> None:
    for values in per_query(np.array([rank for rank in order if rank <= many]), np.array([0, many])).values():
        assert values[0] <= 1


def test_no_queries() -> None:
    found = ranks(Given(np.zeros((0, 4))), ask([], []))
    assert found.ranks.shape == (0,)
    assert found.top.shape == (0, 4)


@pytest.mark.parametrize(("threads", "wanted"), [(1, [2, 2, 1]), (2, [1] * 5)])
def test_a_large_catalogue_is_scored_in_small_batches(monkeypatch: pytest.MonkeyPatch, threads: int, wanted: list[int]) -> None:
    monkeypatch.setattr(ranking, "BLOCK_CELLS", 20)
    monkeypatch.setattr("nightloom.core.threads.cores", lambda: threads)
    sizes = []

    class Watched(Given):
        def scores(self, histories: Histories) -> np.ndarray:
            sizes.append(len(histories))
            return super().scores(histories)

    ranks(Watched(np.arange(50.0).reshape(5, 10)), ask([[]] * 5, [[9]] * 5))
    assert sorted(sizes, reverse=True) == wanted


@pytest.mark.parametrize("name", ["nightloom", "gru", "mlp", "bpr"])
def test_threads_find_what_one_alone_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    if name == "nightloom":
        model: Recommender = Bundle.load(serving_bundle(tmp_path, reranker=True, labels=True)).recommender
    else:
        model = build(name, 3).fit(known_histories(), N_ITEMS)
    before = threadpool_info()
    known, random = known_histories(), np.random.default_rng(0)
    many = len(known) * 20
    histories = known.take(random.integers(0, len(known), many))
    queries = Queries(np.arange(many), histories, np.arange(many + 1), random.integers(0, N_ITEMS, many))
    found = []
    for threads in (1, 4):
        monkeypatch.setattr("nightloom.core.threads.cores", lambda threads=threads: threads)
        found.append(ranks(model, queries, exclude_seen=False, batch=4))
    np.testing.assert_array_equal(found[0].ranks, found[1].ranks)
    np.testing.assert_array_equal(found[0].top, found[1].top)
    assert threadpool_info() == before, "and leave the process as it was"


@given(st.data())
def test_ndcg_of_scores_is_that_of_the_ranks(data: st.DataObject) -> None:
    n, n_items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 25))
    matrix = data.draw(arrays.arrays(np.float32, (n, n_items), elements=st.sampled_from([-np.inf, 0.0, 0.25, 1.0, 7.0])))
    some = st.lists(st.integers(0, n_items - 1), min_size=1, max_size=14, unique=True)
    queries = ask([[]] * n, data.draw(st.lists(some, min_size=n, max_size=n)))
    found = ranks(Given(matrix), queries)
    expected = per_query(found.ranks, found.offsets)["ndcg_at_10"]
    gains = ndcg_of_scores(matrix, held_out_mask(queries, n_items), np.diff(queries.target_offsets))
    assert gains == pytest.approx(expected, abs=1e-12)
