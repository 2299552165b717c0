"""Counters look back only: held against counting by hand, and against changes of everything that comes later."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.data.preparation.counters import PRIOR_WEIGHT, count, counters

Log = list[tuple[int, int, bool, bool]]
logs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12), st.booleans(), st.booleans()), min_size=1, max_size=40)
"""Rows of key, time, clicked, known: few keys and times, so that ties are many."""


def arrays(log: Log) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    keys, times, clicks, known = (np.array(column) for column in zip(*log, strict=True))
    return keys, times, clicks, known


def features(log: Log) -> np.ndarray:
    keys, times, clicks, known = arrays(log)
    return np.column_stack(list(counters({"user": keys, "pair": keys * 13 % 2}, times, clicks, known).values()))


@given(logs)
def test_the_past_is_what_one_counts_by_hand(log: Log) -> None:
    past = count(*arrays(log))
    for row, (key, time, _, _) in enumerate(log):
        earlier = [one for one in log if one[0] == key and one[1] < time and one[3]]
        assert past.shown[row] == len(earlier)
        assert past.clicked[row] == sum(one[2] for one in earlier)
        if earlier:
            assert past.since[row] == time - max(one[1] for one in earlier)
        else:
            assert math.isnan(past.since[row])


@given(logs, logs, st.integers(0, 12))
def test_no_later_event_changes_an_earlier_row(log: Log, others: Log, now: int) -> None:
    """Whatever happens from `now` on - deleted, other clicks, other keys, new rows - rows up to `now` keep their features."""
    past = [row for row in log if row[1] < now]
    asked: Log = [(key, now, False, True) for key in range(4)]  # these rows are simultaneous: they do not know each other either
    future = [(key, now + time, clicked, known) for key, time, clicked, known in others]
    alone = features(past + asked)
    np.testing.assert_array_equal(features(past + asked + future)[: len(alone)], alone)
    flipped: Log = [(key, time, not clicked, known) for key, time, clicked, known in asked]
    np.testing.assert_array_equal(features(past + flipped + future)[: len(alone)], alone)


@given(logs, st.randoms())
def test_the_order_of_rows_does_not_matter_only_their_times(log: Log, random: object) -> None:
    places = list(range(len(log)))
    random.shuffle(places)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(features([log[place] for place in places]), features(log)[places])


@given(logs)
def test_clicks_that_are_not_known_are_never_used(log: Log) -> None:
    hidden: Log = [(key, time, clicked if known else not clicked, known) for key, time, clicked, known in log]
    np.testing.assert_array_equal(features(hidden), features(log))


def test_rates_are_log_odds_against_the_overall_rate_then() -> None:
    found = counters({"ad": np.array([0, 0, 0, 1, 1])}, np.arange(5), np.array([True, True, False, False, True]))
    usual = (2 + 1) / (3 + 2)  # before the fourth row: two clicks of three
    assert found["ad rate"][3] == pytest.approx(0)
    assert found["ad shown"].tolist() == pytest.approx([0, math.log(2), math.log(3), 0, math.log(2)])
    usual = (2 + 1) / (4 + 2)
    rate = (0 + PRIOR_WEIGHT * usual) / (1 + PRIOR_WEIGHT)
    assert found["ad rate"][4] == pytest.approx(math.log(rate / (1 - rate)) - math.log(usual / (1 - usual)))
    assert found["ad since"][4] == pytest.approx(math.log(2))


def test_an_empty_log_has_empty_counters() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert all(len(column) == 0 for column in counters({"user": nothing}, nothing, np.zeros(0, dtype=bool)).values())
