"""Cached keys and values give what encoding the whole history gives, whatever happened before."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.queries import Query
from nightloom.core.sequences import Histories
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.users import StoredUser, UserCache
from nightloom.serving.settings import CACHE_BYTES, CACHE_SHARE, cache_bytes
from tests.serving_bundle import DAY, EVENTS, N_ITEMS, START, serving_bundle, some_query, with_positive

CLOSE = 1e-5
NOW = START + 200 * DAY


@pytest.fixture(scope="module", params=[{}, {"max_history": 12}, {"timed": False}, {"use_time": False}], ids=str)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("stored")
    write_serving(serving_bundle(home / "bundle", reranker=True, labels=True, **request.param), home / "serving")
    return home / "serving"


def answers_alike(engine: Engine, user: str, query: Query, *, now: int = NOW) -> None:
    """The user's vector within `CLOSE` of the one by full encoding, and the same list."""
    full = replace(query, request_time=now if engine.clock.has_time else None)
    one = engine.users.get(user)
    asked = engine._time_of(one, now)
    kept = one.vector(engine.net, engine.catalogue.vectors, engine.max_history, asked)
    np.testing.assert_allclose(kept, engine._vector(engine._read(full)), atol=CLOSE)
    for mine, wanted in zip(engine.recommend_user(user, 20, now=now), engine.recommend(full, 20), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=CLOSE)


class Diary:
    """What a user did, as a query."""

    def __init__(self, query: Query) -> None:
        times = query.times or [0] * len(query.history)
        self.rows = list(zip(times, query.history, query.event_types or [], query.positive or [], strict=True))

    def add(self, time: int, item: str, event: str, positive: bool) -> None:
        behind = [place for place, row in enumerate(self.rows) if row[0] > time]
        self.rows.insert(behind[0] if behind else len(self.rows), (time, item, event, positive))

    def query(self, *, timed: bool) -> Query:
        times, items, events, positive = (list(column) for column in zip(*self.rows, strict=True)) if self.rows else ([], [], [], [])
        return Query(items, times if timed else None, events, positive)


def acted(random: np.random.Generator, diary: Diary, *, late: bool) -> Iterator[tuple[str, int, int, bool]]:
    """Events one after the other, some of them late, noted in the diary: item, code, time, whether positive."""
    moment = START + 60 * DAY
    while True:
        moment += int(random.integers(0, DAY))
        time = moment - (int(random.integers(0, 70 * DAY)) if late and random.random() < 0.3 else 0)
        item, code, positive = f"i{random.integers(0, N_ITEMS)}", int(random.integers(0, len(EVENTS))), bool(random.random() < 0.5)
        diary.add(time, item, EVENTS[code], positive)
        yield item, code, time, positive


@pytest.mark.parametrize("events", [0, 1, 9, 40])
@pytest.mark.parametrize("late", [False, True], ids=["in order", "some late"])
def test_after_each_event_as_if_encoded_whole(folder: Path, events: int, late: bool) -> None:
    random = np.random.default_rng(events)
    start = some_query(events, friends=0, timed=True)
    known = replace(start, positive=(random.random(events) < 0.5).tolist(), request_time=None)
    engine = Engine.open(folder, stored=lambda user: known if user == "ann" else Query())
    timed = engine.clock.has_time
    if not timed:
        known = replace(known, times=None)
    diary = Diary(known)
    answers_alike(engine, "ann", diary.query(timed=timed))
    for _, (item, code, time, positive) in zip(range(30), acted(random, diary, late=late and timed), strict=False):
        inside = engine.apply("ann", item, code, time, positive=positive)
        assert inside
        answers_alike(engine, "ann", diary.query(timed=timed))


def test_events_that_nobody_asked_after(folder: Path) -> None:
    engine, random, diary = Engine.open(folder), np.random.default_rng(0), Diary(Query())
    for _, (item, code, time, positive) in zip(range(20), acted(random, diary, late=False), strict=False):
        engine.apply("bob", item, code, time, positive=positive)
    assert engine.users.get("bob").keys is None
    answers_alike(engine, "bob", diary.query(timed=engine.clock.has_time))


@pytest.mark.parametrize("events", [0, 1, 50, 400])
def test_a_stored_user_is_answered_as_by_the_bundle(folder: Path, events: int) -> None:
    bundle = Bundle.load(folder.with_name("bundle"))
    known = with_positive(replace(some_query(events, friends=0), request_time=None))
    known = known if bundle.clock.has_time else replace(known, times=None)
    engine = Engine.open(folder, stored=lambda _: known)
    asked = replace(known, request_time=NOW if bundle.clock.has_time else None)
    items, scores = engine.recommend_user("ann", N_ITEMS, now=NOW, exclude_seen=False)
    np.testing.assert_allclose(scores, bundle.recommender.scores(bundle.histories([asked]))[0, items], atol=1e-4)


def test_an_event_costs_one_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.open(folder, stored=lambda _: replace(some_query(8, friends=0), times=None if not timed else some_query(8).times))
    timed = engine.clock.has_time
    engine.recommend_user("ann", 5, now=NOW)
    read: list[int] = []
    from nightloom.serving.model import users

    whole = users.extend
    monkeypatch.setattr(users, "extend", lambda *said: (read.append(len(said[2].items) - said[3]), whole(*said))[1])
    engine.apply("ann", "i3", 1, START + 1, positive=True)
    engine.recommend_user("ann", 5, now=NOW)
    engine.recommend_user("ann", 5, now=NOW + 1)
    assert read == [1, 1, 1]


def test_an_event_that_is_taken_back(folder: Path) -> None:
    engine, random, diary = Engine.open(folder), np.random.default_rng(5), Diary(Query())
    for _, (item, code, time, positive) in zip(range(15), acted(random, diary, late=False), strict=False):
        engine.apply("eve", item, code, time, positive=positive)
    engine.recommend_user("eve", 5, now=NOW)
    timed = engine.clock.has_time
    for place in (4, 12, 0):
        time, item, event, _ = diary.rows[place]
        if not timed:
            place = max(at for at, row in enumerate(diary.rows) if row[1:3] == (item, event))
        diary.rows.pop(place)
        assert engine.retract("eve", item, EVENTS.index(event), time)
        answers_alike(engine, "eve", diary.query(timed=timed))
    assert not engine.retract("eve", "i1", 0, 17)
    assert not engine.retract("eve", "nothing", 0, 17)


def test_the_cache_holds_no_more_than_it_may(folder: Path) -> None:
    engine = Engine.open(folder, stored=lambda _: Query(["i1", "i2"], [START - 5, START]), cache_bytes=60_000)
    for user in range(30):
        engine.recommend_user(f"user {user}", 3, now=NOW)
        assert engine.users.nbytes <= 60_000
    assert 1 <= len(engine.users) < 30
    assert "user 29" in engine.users
    assert "user 0" not in engine.users
    assert engine.users.nbytes == sum(one.nbytes for one, _ in engine.users._users.values())
    engine.forget_user("user 29")
    assert "user 29" not in engine.users


def test_friends_come_with_the_call(folder: Path) -> None:
    engine = Engine.open(folder)
    query = some_query(0)
    mine = engine.recommend_user("ann", 20, now=NOW, friends=query.friends)
    wanted = engine.recommend(replace(query, request_time=NOW), 20)
    np.testing.assert_array_equal(mine[0], wanted[0])
    assert (engine.recommend_user("ann", 20, now=NOW)[1] != mine[1]).any()


def test_a_request_is_not_before_the_latest_event(folder: Path) -> None:
    engine = Engine.open(folder)
    engine.apply("ann", "i1", 1, NOW + 50, positive=True)
    query = Query(["i1"], [NOW + 50] if engine.clock.has_time else None, ["buy"], [True], request_time=NOW + 50)
    np.testing.assert_allclose(engine.recommend_user("ann", 5, now=NOW)[1], engine.recommend(query, 5)[1], atol=CLOSE)


def test_what_the_cache_counts_is_what_it_takes() -> None:
    """Thousands of people with a few events each, such as a bulk of events brings, must not take twice the memory that was given."""
    cache = UserCache(lambda _: StoredUser(Histories.of_items([[1, 2]]), timed=True), 1 << 30)
    cache.get("first")
    tracemalloc.start()
    try:
        before, counted = tracemalloc.get_traced_memory()[0], cache.nbytes
        for number in range(2_000):
            cache.get(f"user {number}")
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.nbytes - counted == pytest.approx(taken, rel=0.1)


def test_workers_share_a_part_of_the_memory_for_stored_users(tmp_path: Path) -> None:
    said = tmp_path / "memory.max"
    whole = cache_bytes(1, tmp_path / "none")
    assert whole >= CACHE_BYTES
    said.write_text("max\n")
    assert cache_bytes(1, said) == whole
    said.write_text(f"{CACHE_BYTES * CACHE_SHARE * 4}\n")
    assert cache_bytes(1, said) == min(CACHE_BYTES * 4, whole)
    assert cache_bytes(2, said) == min(CACHE_BYTES * 2, max(whole // 2, CACHE_BYTES))
    said.write_text(f"{1 << 20}\n")
    assert cache_bytes(2, said) == CACHE_BYTES, "never less"
