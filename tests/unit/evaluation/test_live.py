"""The figure of scorers that are kept up to date, on a world whose fashion changes after the cut."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from nightloom.core.metrics import per_query
from nightloom.core.ranking import ranks
from nightloom.core.sequences import Queries, Sequences
from nightloom.core.streaming import queries_of
from nightloom.evaluation import live
from nightloom.models.scorers.registry import CLASSES, fit_scorers
from nightloom.models.sequential.recommender import SequentialRecommender
from tests.unit.models.test_sequential import LOOM, N_ITEMS

USERS, START, HOUR = 60, 1_700_000_000, 3600


def fashion(seed: int = 0) -> Sequences:
    """Every user has an event an hour; until the cut on items 0 to 5, from then on on 6 to 8, in an order of their own."""
    random = np.random.default_rng(seed)
    before, after = 4, 3
    length = before + after
    items = np.concatenate([np.concatenate([random.permutation(6)[:before], 6 + random.permutation(3)]) for _ in range(USERS)])
    times = START + HOUR * np.tile(np.arange(length), USERS) + np.repeat(random.integers(0, HOUR // 2, USERS), length)
    offsets = np.arange(0, USERS * length + 1, length)
    kind, positive = np.zeros(USERS * length, dtype=np.int16), np.ones(USERS * length, dtype=bool)
    return Sequences(offsets, items.astype(np.int32), times, kind, positive, offsets[:-1] + 2, offsets[:-1] + before, n_items=N_ITEMS)


def counting(one: Sequences, *names: str) -> SequentialRecommender:
    """A model of scorers alone, which know all before the cut."""
    scorers = fit_scorers(names, one.train(with_validation=True), LOOM.content)
    return SequentialRecommender(LOOM.config, LOOM.shape, LOOM.net, LOOM.content, scorers, dict.fromkeys(names, 1 / len(names)))


def ndcg(model: SequentialRecommender, queries: Queries) -> float:
    ranked = ranks(model, queries)
    return float(per_query(ranked.ranks, ranked.offsets)["ndcg_at_5"].mean())


def test_scorers_that_go_on_see_a_new_fashion_that_frozen_ones_do_not() -> None:
    one = fashion()
    model, queries = counting(one, "popularity", "graph"), queries_of("streaming", one, "test", exclude_seen=True)
    frozen = ndcg(model, queries)
    scorers = dict(model.scorers)
    found = live.measure_live(model, one, queries, exclude_seen=True, confidence=0.95)
    assert found is not None
    assert found["metrics"]["ndcg_at_5"] > frozen + 0.15
    assert all(low <= found["metrics"][name] <= high for name, (low, high) in found["intervals"].items())
    assert model.scorers == scorers, "the model is left as it is"
    assert ndcg(model, queries) == frozen


def test_each_part_knows_all_that_was_before_its_first_query_and_nothing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    one = fashion()
    model, queries = counting(one, "popularity"), queries_of("streaming", one, "test", exclude_seen=True)
    fitted: list[np.ndarray] = []
    fit = SequentialRecommender.fit

    def noted(self, train, n_items):  # type: ignore[no-untyped-def]
        fitted.append(np.sort(train.times))
        return fit(self, train, n_items)

    monkeypatch.setattr(SequentialRecommender, "fit", noted)
    live.measure_live(model, one, queries, exclude_seen=True, confidence=0.95)
    parts = np.array_split(np.sort(queries.times), live.LIVE_STEPS)
    assert len(fitted) == live.LIVE_STEPS
    for known, part in zip(fitted, parts, strict=True):
        np.testing.assert_array_equal(known, np.sort(one.times[one.times < part[0]]))
    # What comes after a part changes nothing of it: the first half of the period is the same with another second half.
    half = np.sort(queries.times)[len(queries) // 2]
    other = replace(one, items=np.where(one.times >= half, (one.items + 3) % N_ITEMS, one.items).astype(np.int32))
    first = [row for row in range(len(queries)) if queries.times[row] < half]
    some = queries.take(np.array(first))
    again = replace(some, histories=replace(some.histories, sequences=other))
    told = (live.measure_live(model, which, asked, exclude_seen=True, confidence=0.95) for which, asked in ((one, some), (other, again)))
    assert next(told) == next(told)


def test_counters_go_on_and_what_is_solved_for_by_night_stays() -> None:
    one = fashion()
    model, queries = counting(one, *CLASSES), queries_of("streaming", one, "test", exclude_seen=True)
    seen: list[dict[str, object]] = []

    class Noting(SequentialRecommender):
        def scores(self, histories):  # type: ignore[no-untyped-def]
            seen.append(dict(self.scorers))
            return super().scores(histories)

    model.__class__ = Noting
    assert live.measure_live(model, one, queries, exclude_seen=True, confidence=0.95)
    assert len(seen) == live.LIVE_STEPS
    for name in CLASSES:
        distinct = {id(one[name]) for one in seen}
        assert distinct == {id(model.scorers[name])} if name in live.BY_NIGHT else len(distinct) == live.LIVE_STEPS
        assert set(seen[0]) == set(CLASSES)


def test_without_times_or_streaming_queries_there_is_no_such_figure() -> None:
    one = fashion()
    model = counting(one, "popularity")
    for which, protocol in ((replace(one, times=np.zeros_like(one.times)), "streaming"), (one, "temporal")):
        queries = queries_of(protocol, which, "test", exclude_seen=True)
        assert len(queries)
        assert live.measure_live(model, which, queries, exclude_seen=True, confidence=0.95) is None
    nobody = queries_of("streaming", replace(one, validation_end=one.offsets[1:]), "test", exclude_seen=True)
    assert live.measure_live(copy(model), one, nobody, exclude_seen=True, confidence=0.95) is None
