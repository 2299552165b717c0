"""What the engine learns from events is what a model learns that is fitted anew on all of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from nightloom.core.queries import Query
from nightloom.core.ragged import offsets_of, owners
from nightloom.core.sequences import Histories
from nightloom.models.heads.item_counters import ItemCounters
from nightloom.models.scorers.graph import TransitionGraph
from nightloom.models.scorers.popularity import Popularity, positive_counts
from nightloom.models.scorers.trend import Trend, weight_of
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.members import Trend as MemberTrend
from tests.serving_bundle import DAY, EVENTS, N_ITEMS, START, known_histories, serving_bundle, some_query

USERS, EVENTS_BY_DAY, CLOSE = 40, 1000, 1e-5
Row = tuple[int, int, int, bool]
"""Time, item, code, whether positive."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("learning")
    write_serving(serving_bundle(home / "bundle", reranker=True, labels=True), home / "serving")
    return home


def diaries_of(known: Histories) -> list[list[Row]]:
    rows = [*zip(known.times.tolist(), known.items.tolist(), known.event_types.tolist(), known.positive.tolist(), strict=True)]
    return [rows[first:last] for first, last in pairwise(known.offsets.tolist())]


def histories_of(diaries: list[list[Row]]) -> Histories:
    rows = [row for diary in diaries for row in diary]
    times, items, codes, positive = (np.array(column) for column in zip(*rows, strict=True))
    return Histories(
        offsets_of([len(one) for one in diaries]),
        items.astype(np.int32),
        times,
        codes.astype(np.int16),
        positive,
        np.zeros(len(diaries), np.int64),
        seen=codes > 0,
    )


def query_of(diary: list[Row]) -> Query:
    columns = [list(column) for column in zip(*diary, strict=True)] or [[]] * 4
    return Query([f"i{item}" for item in columns[1]], columns[0], [EVENTS[code] for code in columns[2]], columns[3])


def opened(home: Path, diaries: list[list[Row]], cache_bytes: int) -> Engine:
    """An engine whose store is the diaries."""
    return Engine.open(home / "serving", stored=lambda user: query_of(diaries[int(user)]), cache_bytes=cache_bytes)


def live(engine: Engine, home: Path, diaries: list[list[Row]], seed: int, *, late: bool) -> None:
    """A day of events; some of items that nobody knew, some late."""
    random, moment = np.random.default_rng(seed), START
    for _ in range(EVENTS_BY_DAY):
        moment += int(random.integers(1, DAY // 10))
        user = int(random.integers(0, USERS))
        time = moment - (int(random.integers(0, 40 * DAY)) if late and random.random() < 0.2 else 0)
        code = int(random.integers(0, len(EVENTS)))
        row = (time, int(random.integers(0, N_ITEMS)), code, bool(random.random() < 0.6))
        assert engine.apply(str(user), f"i{row[1]}", code, time, positive=row[3])
        place = next((at for at, one in enumerate(diaries[user]) if one[0] > time), len(diaries[user]))
        diaries[user].insert(place, row)


def refitted(home: Path, known: Histories) -> Bundle:
    """The bundle with what events change fitted anew; co-occurrence, factors and what is expected of items without events stay."""
    bundle = Bundle.load(home / "bundle")
    model = bundle.recommender
    before = model.scorers["popularity"]
    assert isinstance(before, Popularity)
    popularity = Popularity()._keep(positive_counts(known, N_ITEMS), before.expected)
    trend, same = model.scorers["trend"], Trend()
    assert isinstance(trend, Trend)
    same.day, same.half_life = trend.day, trend.half_life
    weights = weight_of(known.times[known.positive], same.day, same.half_life)
    same._keep(np.bincount(known.items[known.positive], weights, minlength=N_ITEMS), trend.expected)
    model.scorers = {**model.scorers, "graph": TransitionGraph().fit(known, N_ITEMS), "popularity": popularity, "trend": same}
    assert model.reranker is not None
    model.reranker = replace(model.reranker, item_counters=ItemCounters.of(known, N_ITEMS, 60))
    assert model.labels is not None
    model.labels = replace(model.labels, counters=type(model.labels.counters).of(known, N_ITEMS, 60))
    return bundle


def alike(engine: Engine, bundle: Bundle) -> None:
    """Each member's scores, and the answers."""
    base = engine.members["graph"].base.values  # type: ignore[attr-defined]
    np.testing.assert_allclose(base, bundle.recommender.scorers["graph"].base.values, rtol=1e-6)  # type: ignore[attr-defined]
    # A refit keeps 60 days before the latest event, some 50 days after the start: the counters of 30 days are whole from day 25 on.
    for events, days in ((0, 70), (1, 25), (50, 45)):
        query = replace(some_query(events), request_time=START + days * DAY)
        histories = bundle.histories([query])
        for name in ("graph", "popularity", "trend", "cooccurrence", "als"):
            scores = np.empty(N_ITEMS, np.float32)
            engine.members[name].score(histories, scores)
            np.testing.assert_allclose(scores, bundle.recommender.scorers[name].scores(histories)[0], atol=CLOSE, err_msg=name)
        items, scores = engine.recommend(query, N_ITEMS)
        ((*wanted,),) = bundle.recommend([query], N_ITEMS)
        np.testing.assert_allclose(scores, [score for _, score in wanted], atol=1e-4)
        (probabilities,) = bundle.probabilities([query], [[f"i{item}" for item in items[:20]]])
        np.testing.assert_allclose(engine.label_probabilities(query, items[:20]), probabilities, atol=1e-6)


@pytest.mark.parametrize("late", [False, True], ids=["in order", "some late"])
@pytest.mark.parametrize("cache_bytes", [1 << 28, 30_000], ids=["all in memory", "most let go"])
def test_a_thousand_events_equal_a_refit(home: Path, late: bool, cache_bytes: int) -> None:
    diaries = diaries_of(known_histories(USERS))
    engine = opened(home, diaries, cache_bytes)
    live(engine, home, diaries, 7, late=late)
    alike(engine, refitted(home, histories_of(diaries)))


def test_what_is_taken_back_is_as_if_it_had_never_been(home: Path) -> None:
    diaries = diaries_of(known_histories(USERS))
    before = [list(one) for one in diaries]
    engine = opened(home, diaries, 1 << 28)
    live(engine, home, diaries, 3, late=False)
    for user, rows in enumerate(diaries):
        for row in rows[::-1]:
            if row[0] > START:
                assert engine.retract(str(user), f"i{row[1]}", row[2], row[0])
    diaries[:] = before
    alike(engine, refitted(home, histories_of(diaries)))


def test_an_event_of_centuries_after_training_counts_as_one_of_its_last_day(home: Path) -> None:
    """Data may end decades before they are served, and a client may send any year."""
    engine, query = Engine.open(home / "serving"), some_query(5)
    trend = engine.members["trend"]
    assert isinstance(trend, MemberTrend)
    before, values = engine.recommend(query, N_ITEMS), trend.values.copy()
    item = int(np.argmin(values))
    for times in range(3):
        assert engine.apply("ann", f"i{item}", 1, START + 100_000 * DAY + times, positive=True)
    assert trend.values[item] == pytest.approx(np.log1p(np.expm1(values[item]) + 3))
    assert len(engine.recommend(query, N_ITEMS)[0]) == len(before[0])
    for times in range(3):
        assert engine.retract("ann", f"i{item}", 1, START + 100_000 * DAY + times)
    np.testing.assert_allclose(trend.values, values, atol=1e-6)


def test_an_event_of_an_unknown_item_changes_nothing(home: Path) -> None:
    engine = Engine.open(home / "serving")
    before = engine.recommend(some_query(5), 20)
    assert not engine.apply("ann", "nothing", 1, START, positive=True)
    for one, other in zip(engine.recommend(some_query(5), 20), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_counts_of_the_artefact_are_those_of_training(home: Path) -> None:
    engine, known = Engine.open(home / "serving"), known_histories(USERS)
    graph = engine.members["graph"]
    raw = TransitionGraph().fit(known, N_ITEMS)
    assert raw.seen is not None
    offsets, targets, weights = graph.edges.packed()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(offsets, raw.offsets)
    np.testing.assert_array_equal(targets, raw.targets)
    seen = np.maximum(raw.seen, 1)
    np.testing.assert_allclose(weights, raw.weights * np.sqrt(seen[owners(raw.offsets)] * seen[raw.targets]), rtol=1e-6)


def test_what_ships_holds_no_edge_of_few_people_and_no_exact_time_and_still_learns(tmp_path: Path) -> None:
    """Four people took a step by night, so the artefact does not show it; by day a fifth takes it, and it counts for that one."""
    folder = serving_bundle(tmp_path / "bundle", reranker=True, labels=True, min_support=5, by_day=True)
    write_serving(folder, tmp_path / "serving")
    known = known_histories(USERS)
    users = [set(known.items[first:last].tolist()) for first, last in pairwise(known.offsets.tolist())]
    engine = Engine.open(tmp_path / "serving")
    for name in ("graph", "cooccurrence"):
        offsets, targets, _ = engine.members[name].edges.packed()  # type: ignore[attr-defined]
        for source, target in zip(owners(offsets).tolist(), targets.tolist(), strict=True):
            assert sum({source, target} <= one for one in users) >= 5
    for file in ("reranker.safetensors", "labels.safetensors"):
        for name, array in load_file(tmp_path / "serving" / file).items():
            if name.endswith((".before_last", ".first")):
                assert not (array[array >= 0] % DAY).any()
            elif name.endswith(".times"):
                start = load_file(tmp_path / "serving" / file)[name.replace(".times", ".start")]
                assert not ((array + start) % DAY).any()
    item, other = next(iter(engine.catalogue.index)), f"i{N_ITEMS - 1}"
    before = np.zeros(N_ITEMS, np.float32)
    ask = engine._read(Query([item]))
    engine.members["graph"].score(ask, before)
    engine.apply("eve", item, 1, START + DAY, positive=True)
    engine.apply("eve", other, 1, START + DAY + 60, positive=True)
    after = np.zeros(N_ITEMS, np.float32)
    engine.members["graph"].score(ask, after)
    assert after[N_ITEMS - 1] > max(float(before[N_ITEMS - 1]), 0)


def test_taking_back_what_the_artefact_does_not_show_leaves_nothing_below_zero(tmp_path: Path) -> None:
    folder = serving_bundle(tmp_path / "bundle", scorers=("graph",), min_support=5)
    write_serving(folder, tmp_path / "serving")
    diaries = diaries_of(known_histories(USERS))
    engine = opened(tmp_path, diaries, 1 << 28)
    base = engine.members["graph"].base.values.copy()  # type: ignore[attr-defined]
    rows = [row for row in diaries[0] if row[2] == 1][:1]
    assert engine.retract("0", f"i{rows[0][1]}", rows[0][2], rows[0][0])
    scores = np.zeros(N_ITEMS, np.float32)
    for item in range(N_ITEMS):
        engine.members["graph"].score(engine._read(Query([f"i{item}"])), scores)
        assert (scores[np.isfinite(base)] >= 0).all()
