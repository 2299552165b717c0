"""Queries become histories in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.core.queries import Query, build_histories
from nightloom.core.sequences import Histories

INDEX = {"a": 0, "b": 1, "c": 2}
NAMES = EventNames.of({"event_types": ["buy", "view"], "default_event_type": "buy", "prepare": {"positive_events": ["buy"]}})


def build(*queries: Query) -> Histories:
    return build_histories(queries, INDEX, NAMES)


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
    ("query", "time"),
    [
        (Query(["a"], [5], request_time=9), 9),
        (Query(["a", "gone"], [5, 7]), 7),
        (Query(["a"], request_time=9), 0),  # without the times of its events a history has no age
        (Query(request_time=9), 9),
        (Query(), 0),
    ],
)
def test_the_time_of_a_request(query: Query, time: int) -> None:
    assert build(query).request_time.tolist() == [time]


def test_friends_are_linked_to_their_own_query() -> None:
    found = build(Query(["a"]), Query(friends=[["b", "gone"], ["c", "a"]]), Query(["c"], friends=[["c"]]))
    assert found.links is not None
    assert found.links.offsets.tolist() == [0, 0, 2, 3]
    last = found.take(np.array([2])).links
    assert last is not None
    assert last.known.take(last.friends).items.tolist() == [2]


def test_no_query_and_arrays_for_lists() -> None:
    assert len(build()) == 0
    found = build(Query(np.array(["a", "b"]), np.array([3, 4]), positive=np.array([False, True])))  # type: ignore[arg-type]
    assert (found.request_time.tolist(), found.positive.tolist()) == ([4], [False, True])


@pytest.mark.parametrize("given", [{"times": [1]}, {"event_types": ["buy"] * 3}, {"positive": []}])
def test_lists_must_match_the_history(given: dict[str, Any]) -> None:
    (name, values) = next(iter(given.items()))
    with pytest.raises(InputError, match=f"query 1: {len(values)} {name} for 2 events"):
        build(Query(), Query(["a", "gone"], **given))


def test_an_unknown_event_type_is_refused() -> None:
    with pytest.raises(InputError, match=r"the model knows no event 'sold'\. It knows: buy, view"):
        build(Query(["gone"], event_types=["sold"]))
