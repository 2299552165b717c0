"""As many requests are taken as are answered in time."""

from __future__ import annotations

import pytest

from nightloom.serving.api import pace
from nightloom.serving.api.pace import CALM_TIMES, FEWEST, LATE, LINGER, LONGEST_WAIT, PATIENCE, STANDING, Pace


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


@pytest.mark.parametrize(("seconds", "wanted"), [(0.00005, 64), (0.0001, 50), (0.0002, 25), (0.0005, 10), (0.001, FEWEST), (0.1, FEWEST)])
def test_nobody_waits_longer_than_said_where_a_crowd_stays(clock: list[float], seconds: float, wanted: int) -> None:
    one = Pace(64)
    answer_in_turn(one, clock, seconds, many=int(STANDING / seconds) + 500)
    assert abs(taken(one) - wanted) <= 1
    assert taken(one) * seconds <= max(LONGEST_WAIT, FEWEST * seconds) * 1.05
    answer_in_turn(one, clock, 0.00005, many=2000)
    assert taken(one) == 64


def test_a_crowd_that_is_soon_over_is_taken(clock: list[float]) -> None:
    one = Pace(64)
    for _ in range(50):
        for _ in range(40):  # all that came while the worker stood still
            assert not one.full
            one.begin()
        for _ in range(40):
            clock[0] += 0.001
            one.end()
        for _ in range(5):  # then they come one by one
            clock[0] += 0.001
            one.begin()
            clock[0] += 0.001
            one.end()


def test_a_crowd_stays_although_all_of_it_is_answered_before_the_next_one_is_seen(clock: list[float]) -> None:
    one = Pace(64)
    for _ in range(200):
        while not one.full:
            one.begin()
        for _ in range(one.now):
            clock[0] += 0.001
            one.end()
    assert taken(one) == FEWEST, "the few that are taken of a crowd are no sign of calm"


def test_a_crowd_is_there_as_long_as_it_asks(clock: list[float]) -> None:
    one = Pace(64)
    assert not one.crowded
    answer_in_turn(one, clock, 0.001, many=int(STANDING / 0.001) + 500)
    assert one.crowded
    clock[0] += STANDING
    assert not one.crowded
    for _ in range(100):  # one by one is no crowd
        one.begin()
        clock[0] += 0.01
        one.end()
        assert not one.crowded


def one_by_one(one: Pace, clock: list[float], many: int) -> None:
    """Requests of which each comes after the one before was answered."""
    for _ in range(many):
        one.begin()
        clock[0] += 0.001
        one.end()


def test_who_has_stood_still_for_a_moment_is_no_sign_of_calm(clock: list[float]) -> None:
    """All that came meanwhile comes then: were it taken, all would wait for it."""
    one = Pace(64)
    answer_in_turn(one, clock, 0.001, many=int(STANDING / 0.001) + 500)
    for _ in range(50):
        one_by_one(one, clock, CALM_TIMES - 1)
        assert taken(one) == FEWEST
        while not one.full:
            one.begin()
        one.refuse()
        while one.now:
            clock[0] += 0.001
            one.end()
    one_by_one(one, clock, CALM_TIMES)
    assert taken(one) == 64, "the crowd has gone"


def test_a_pause_counts_little(clock: list[float]) -> None:
    one = Pace(64)
    answer_in_turn(one, clock, 0.0005, many=2000)
    before = taken(one)
    assert before == 10
    one.begin()
    one.begin()
    one.begin()
    clock[0] += 2.0
    one.end()
    assert taken(one) + 2 >= 0.85 * before


def test_while_another_version_is_opened_more_may_wait_and_not_for_ever(clock: list[float]) -> None:
    one = Pace(64)
    answer_in_turn(one, clock, 0.001, many=int(STANDING / 0.001) + 500)
    before = taken(one)
    with one.patient():
        meanwhile = taken(one)
        assert before == FEWEST
        assert meanwhile == round(PATIENCE * LONGEST_WAIT / 0.001)
        assert meanwhile * 0.001 <= 0.05, "in time even where a crowd stays"
    assert taken(one) == meanwhile, "until the crowd of meanwhile is answered"
    answer_in_turn(one, clock, 0.001, many=int(LINGER / 0.001))
    assert taken(one) == before


def test_who_has_waited_too_long_where_a_crowd_stays_is_not_answered(clock: list[float]) -> None:
    """Others have come meanwhile, who can be answered in time. Without a crowd whoever was taken is answered."""
    one, limit = Pace(64), LATE * max(LONGEST_WAIT, FEWEST * 0.001)
    assert not one.late(lambda: 60.0)
    answer_in_turn(one, clock, 0.001, many=int(STANDING / 0.001) + 500)
    assert not one.late(lambda: 60.0), "a few who ask without a pause are all taken, and wait for nobody else"
    one.refuse()
    assert not one.late(lambda: 0.95 * limit)
    assert one.late(lambda: 1.05 * limit)
    with one.patient():
        assert not one.late(lambda: 1.05 * limit)
        assert one.late(lambda: 2 * PATIENCE * limit)
    clock[0] += STANDING
    one_by_one(one, clock, CALM_TIMES)
    assert not one.late(lambda: 60.0)


def test_a_few_are_answered_however_late_a_busy_machine_lets_the_worker_look(clock: list[float]) -> None:
    one = Pace(64)
    answer_in_turn(one, clock, 0.001, many=int(STANDING / 0.001) + 500)
    for _ in range(100):
        for _ in range(FEWEST - 1):
            one.begin()
        assert one.crowded
        assert not one.late(lambda: 60.0)
        while one.now:
            clock[0] += 0.001
            one.end()


def test_who_is_turned_away_late_says_nothing_of_the_pace(clock: list[float]) -> None:
    """Else all the more would be taken where the engine is slow, and be late as well."""
    one = Pace(64)
    answer_in_turn(one, clock, 0.001, many=int(STANDING / 0.001) + 500)
    for _ in range(100):
        while not one.full:
            one.begin()
        assert one.now == FEWEST
        clock[0] += 0.001
        one.end()
        while one.now:
            one.end(answered=False)
