"""A part of the events: what it holds, and what is refused."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest
from pydantic import ValidationError

from nightloom.config import EventFilterConfig
from nightloom.core.errors import InputError
from nightloom.data.subsets.event_filter import filter_events
from nightloom.data.tables.schema import Tables


@pytest.fixture
def tables() -> Tables:
    """Twenty people, one event in each of two years; each has a friend."""
    people = [f"u{one}" for one in range(20)]
    days = pd.to_datetime(["2010-11-30T23:59:59", "2010-12-01T00:00:00"]).as_unit("ms").tz_localize("UTC")
    events = pd.DataFrame({"user_id": people * 2, "item_id": "i0", "timestamp": days.repeat(20)})
    links = pd.DataFrame({"user_id": people, "other_id": people[1:] + people[:1]})
    return Tables(events, pd.DataFrame({"item_id": ["i0", "i1"]}), pd.DataFrame({"user_id": people}), links)


def test_all_is_taken_where_nothing_is_said(tables: Tables) -> None:
    assert filter_events(tables, EventFilterConfig()) == (tables, {})


def test_two_stretches_share_no_event_and_lose_none(tables: Tables) -> None:
    border = date(2010, 12, 1)
    first, left_out = filter_events(tables, EventFilterConfig(before=border))
    second, _ = filter_events(tables, EventFilterConfig(since=border))
    assert left_out == {"from 2010-12-01 on": 20}
    pd.testing.assert_frame_equal(pd.concat([first.events, second.events], ignore_index=True), tables.events)
    assert first.items is not None
    assert len(first.items) == 2  # the catalogue stays whole


def test_a_share_of_the_users_brings_their_events_rows_and_links_alone(tables: Tables) -> None:
    half, left_out = filter_events(tables, EventFilterConfig(users_share=0.5))
    people = set(half.events["user_id"])
    assert len(people) == 10
    assert len(half.events) == 20
    assert list(left_out.values()) == [20]
    assert half.users is not None
    assert half.links is not None
    assert set(half.users["user_id"]) == people
    assert set(half.links.to_numpy().ravel()) <= people
    assert set(filter_events(tables, EventFilterConfig(users_share=0.2))[0].events["user_id"]) < people


def test_what_can_not_be_taken_is_refused(tables: Tables) -> None:
    with pytest.raises(InputError, match="none of 40 events is left"):
        filter_events(tables, EventFilterConfig(since=date(2020, 1, 1)))
    ordered = Tables(tables.events.assign(order=range(40)).drop(columns="timestamp"))
    with pytest.raises(InputError, match="have an order alone"):
        filter_events(ordered, EventFilterConfig(before=date(2020, 1, 1)))
    with pytest.raises(ValidationError, match="must be a day earlier"):
        EventFilterConfig(since=date(2011, 1, 1), before=date(2011, 1, 1))
