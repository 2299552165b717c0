"""Queries become histories in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.core.queries import LIVE_SECONDS, Clock, Query, build_histories
from nightloom.core.sequences import Histories

INDEX = {"a": 0, "b": 1, "c": 2}
NAMES = EventNames.of({"event_types": ["buy", "view"], "default_event_type": "buy", "prepare": {"positive_events": ["buy"]}})


NOW = 1_800_000_000
LONG_AGO = NOW - LIVE_SECONDS - 1
ANY_TIME = Clock()


def build(*queries: Query, clock: Clock = ANY_TIME) -> Histories:
    return build_histories(queries, INDEX, NAMES, clock)


def test_events_of_unknown_items_are_left_out_with_all_that_belongs_to_them() -> None:
    found = build(Query(["a", "gone", "c"], [1, 2, 3], ["view", "buy", "buy"], [True, True, False]), Query(["b"]), Query())
    assert found.offsets.tolist() == [0, 2, 3, 3]
    assert found.items.tolist() == [0, 2, 1]
    assert found.times.tolist() == [1, 3, 0]
    assert found.event_types.tolist() == [1, 0, 0]
    assert found.positive.tolist() == [True, False, True]
    assert found.seen.tolist() == [False, True, True]
    assert found.links is None


def test_event_types_decide_what_is_positive_unless_the_query_does() -> None:
    unsaid, named, said = (
        build(Query(["a", "b"], **given)) for given in ({}, {"event_types": ["view", "buy"]}, {"positive": [True, False]})
    )
    assert unsaid.positive.tolist() == [True, True]
    assert named.positive.tolist() == [False, True]
    assert said.positive.tolist() == [True, False]


@pytest.mark.parametrize(
    ("query", "latest", "time"),
    [
        (Query(["a"], [5], request_time=9), NOW, 9),  # what is said is taken as it is
        (Query(["a"], [5], request_time=NOW), LONG_AGO, NOW),
        (Query(["a", "gone"], [5, 7]), NOW - 9, NOW),  # a user last here long ago asks now, not then
        (Query(["a"], [NOW - 5]), LONG_AGO, NOW),  # the model is old, but what it is told is of today
        (Query(["a"], [NOW + 5]), NOW - 9, NOW + 5),  # clocks differ: never before the latest event
        (Query(["a"], [5]), LONG_AGO, LONG_AGO + 1),  # a data set of the past: just after its end
        (Query(["a"], request_time=9), NOW, 0),  # without the times of its events a history has no age
        (Query(["a"]), NOW, 0),
        (Query(request_time=9), NOW, 9),
        (Query(), NOW - 9, NOW),
        (Query(), LONG_AGO, LONG_AGO + 1),
        (Query(), None, NOW),
        (Query(["a"], [5]), None, NOW),
    ],
)
def test_the_time_of_a_request(monkeypatch: pytest.MonkeyPatch, query: Query, latest: int | None, time: int) -> None:
    monkeypatch.setattr("nightloom.core.queries.time.time", lambda: NOW + 0.9)
    assert build(query, clock=Clock(latest=latest)).request_time.tolist() == [time]


@pytest.mark.parametrize("query", [Query(), Query(["a"], [5]), Query(["a"], [5], request_time=9), Query(request_time=9)])
def test_where_the_data_have_no_times_no_request_has_one(query: Query) -> None:
    assert build(query, clock=Clock(has_time=False)).request_time.tolist() == [0]


def test_the_moment_is_that_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.of({"has_time": True, "latest_event": NOW})
    for seconds in (NOW, NOW + 60):
        monkeypatch.setattr("nightloom.core.queries.time.time", lambda now=seconds: now)
        assert build(Query(), Query(["a"], [5]), clock=clock).request_time.tolist() == [seconds] * 2


def test_a_model_of_before_knows_when_its_training_data_end() -> None:
    assert Clock.of({"has_time": True, "trained_until": {"temporal": 5, "leave_one_out": 8}}).latest == 8
    assert Clock.of({"has_time": False, "trained_until": {"random": 5}, "latest_event": None}).has_time is False


def test_a_request_before_its_latest_event_is_refused() -> None:
    with pytest.raises(InputError, match=r"query 1: request_time 6 is before its latest event, at 7\. Leave out"):
        build(Query(["a"], [7], request_time=7), Query(["a", "b"], [5, 7], request_time=6))


def test_a_query_as_it_was() -> None:
    query = Query(["a", "b", "c"], [1, 5, 5], ["buy", "view", "buy"], [True, False, True], user_id="u")
    assert query.at(5) == Query(["a"], [1], ["buy"], [True], request_time=5, user_id="u")
    assert query.at(6) == Query(["a", "b", "c"], [1, 5, 5], ["buy", "view", "buy"], [True, False, True], request_time=6, user_id="u")
    assert Query(["a"]).at(5) == Query(["a"], request_time=5)


def test_friends_are_linked_to_their_own_query() -> None:
    found = build(Query(["a"]), Query(friends=[["b", "gone"], ["c", "a"]]), Query(["c"], friends=[["c"]]))
    assert found.links is not None
    assert found.links.offsets.tolist() == [0, 0, 2, 3]
    last = found.take(np.array([2])).links
    assert last is not None
    assert last.known.take(last.friends).items.tolist() == [2]


def test_no_query_and_arrays_for_lists() -> None:
    assert len(build()) == 0
    query = Query(np.array(["a", "b"]), np.array([3, 4]), positive=np.array([False, True]))  # type: ignore[arg-type]
    found = build(query, clock=Clock(latest=2))
    assert (found.request_time.tolist(), found.positive.tolist()) == ([5], [False, True])


@pytest.mark.parametrize("given", [{"times": [1]}, {"event_types": ["buy"] * 3}, {"positive": []}])
def test_lists_must_match_the_history(given: dict[str, Any]) -> None:
    (name, values) = next(iter(given.items()))
    with pytest.raises(InputError, match=f"query 1: {len(values)} {name} for 2 events"):
        build(Query(), Query(["a", "gone"], **given))


def test_an_unknown_event_type_is_refused() -> None:
    with pytest.raises(InputError, match=r"the model knows no event 'sold'\. It knows: buy, view"):
        build(Query(["gone"], event_types=["sold"]))


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (Query(["a", "b"], [1_600_000_000_000, 1_600_000_001_000]), "times holds 1600000001000, which is no time in seconds since 1970"),
        (Query(["a"], [1_600_000_000], request_time=1_600_000_001_000), "request_time holds 1600000001000, which is no time in seconds"),
        (Query(["a", "b"], [1_600_000_001, 1_600_000_000]), "its times fall. Give the events of a history oldest first"),
    ],
)
def test_times_in_another_unit_or_order_are_told_and_not_taken(query: Query, told: str) -> None:
    with pytest.raises(InputError, match=f"query 1: {told}"):
        build(Query(), query)
