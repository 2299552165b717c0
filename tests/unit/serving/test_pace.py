"""As many requests are taken as are answered in time."""

from __future__ import annotations

import pytest

from nightloom.serving.api import pace
from nightloom.serving.api.pace import FEWEST, LONGEST_WAIT, Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [1000.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: moment[0])
    return moment


def answer_in_turn(one: Pace, clock: list[float], seconds: float, many: int = 500) -> None:
    """Requests of which always as many are under way as are taken."""
    for _ in range(many):
        while not one.full:
            one.begin()
        clock[0] += seconds
        one.end()
    while one.now:
        clock[0] += seconds
        one.end()


def taken(one: Pace) -> int:
    """How many more are taken now."""
    many = 0
    while not one.full:
        one.begin()
        many += 1
    for _ in range(many):
        one.now -= 1
    return many


@pytest.mark.parametrize(("seconds", "wanted"), [(0.0001, 64), (0.0005, 60), (0.001, 30), (0.0015, 20), (0.1, FEWEST)])
def test_nobody_waits_longer_than_said(clock: list[float], seconds: float, wanted: int) -> None:
    one = Pace(64)
    assert taken(one) == 64
    answer_in_turn(one, clock, seconds)
    assert abs(taken(one) - wanted) <= 1
    assert taken(one) * seconds <= max(LONGEST_WAIT, FEWEST * seconds) * 1.04
    answer_in_turn(one, clock, 0.0001)
    assert taken(one) == 64


def test_requests_one_at_a_time_tell_their_own_time_and_a_pause_counts_little(clock: list[float]) -> None:
    one = Pace(64)
    for _ in range(500):
        clock[0] += 5  # nobody asks
        one.begin()
        clock[0] += 0.001
        one.end()
    before = taken(one)
    assert before == 30
    one.begin()
    clock[0] += 2.0
    one.end()
    assert taken(one) >= 0.85 * before
