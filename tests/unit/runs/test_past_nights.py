"""A night of a past day: what it knows, where it lies, and what is refused."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from flows.command import day
from nightloom.config import RunConfig, load_preset
from nightloom.core.errors import InputError
from nightloom.runs.backfill import as_of_that_day
from nightloom.runs.nights import finish
from nightloom.runs.stages import Night

TODAY, PAST = date(2026, 11, 30), date(2026, 11, 1)


def config(*settings: str) -> RunConfig:
    return load_preset("movies-small", list(settings))


def test_it_knows_the_events_before_its_day_and_registers_nothing() -> None:
    found = as_of_that_day(config("data.event_filter.since=2026-01-01"), PAST, TODAY)
    assert (found.data.event_filter.since, found.data.event_filter.before) == (date(2026, 1, 1), PAST)
    assert (found.promotion.mode, found.promotion.registers) == ("disabled", False)
    assert as_of_that_day(config("data.event_filter.before=2026-10-01"), PAST, TODAY).data.event_filter.before == date(2026, 10, 1)
    assert as_of_that_day(config(), TODAY, TODAY).data.event_filter.before == TODAY


def test_a_day_without_a_past_is_refused() -> None:
    with pytest.raises(InputError, match="--as-of 2026-12-01: that day has not begun"):
        as_of_that_day(config(), date(2026, 12, 1), TODAY)
    with pytest.raises(InputError, match="since is 2026-11-01, so no event is left before that day"):
        as_of_that_day(config("data.event_filter.since=2026-11-01"), PAST, TODAY)
    with pytest.raises(ArgumentTypeError, match="'yesterday' is no day"):
        day("yesterday")


def test_it_counts_as_run_on_its_day_and_leaves_the_latest_night_alone(tmp_path: Path) -> None:
    real, past = Night.start(config(), tmp_path), Night.past(config(), tmp_path, PAST)
    for night in (real, past):
        night.folder.mkdir(parents=True)
        finish(night)
    assert past.now == datetime(2026, 11, 1, tzinfo=UTC)
    assert past.folder.parent == real.folder.parent
    assert past.folder.name.startswith("as-of-2026-11-01-20")
    assert past.latest.resolve() == real.folder
    assert past.last_rows() is None
