"""Stored events are read by the rules of stage prepare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.data.preparation.stored import look_up
from nightloom.serving.store import Event
from nightloom.serving.stored import Rules


@pytest.mark.parametrize("least", [None, 3.5])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("positive", [None, ["buy", "rate"]])
@pytest.mark.parametrize("busiest", [5000, 300, 290, 100])
def test_as_the_registered_model_reads_them(
    tmp_path: Path, least: float | None, keep: bool, positive: list[str] | None, busiest: int
) -> None:
    rules = {"positive_events": positive, "positive_min_value": least, "keep_repeats": keep, "max_user_events_per_day": busiest}
    meta = {"event_types": ["view", "buy", "rate"], "default_event_type": "buy", "prepare": rules, "rare_items": ["i3"]}
    random, many = np.random.default_rng(0), 300  # 291 of them different
    seconds = np.sort(random.integers(1_700_000_000, 1_700_000_150, many))
    frame = pd.DataFrame(
        {
            "user_id": "u",
            "item_id": [f"i{item}" for item in random.integers(0, 12, many)],
            "timestamp": pd.to_datetime(seconds, unit="s", utc=True).as_unit("ms"),
            "event": random.choice(["view", "buy", "rate"], many),
            "value": random.choice([np.nan, 1.0, 3.5, 5.0], many),
        }
    )
    frame.to_parquet(tmp_path / "events.parquet", index=False)
    wanted = look_up(tmp_path / "events.parquet", ["u"], meta)
    rows = zip(frame["item_id"], frame["event"], seconds.tolist(), frame["value"], strict=True)
    events = [Event("", "u", item, name, second * 1000, None if np.isnan(value) else value) for item, name, second, value in rows]
    found = Rules(meta, has_times=True).query("u", events)
    for name, column in (("history", "item_id"), ("times", "second"), ("event_types", "event"), ("positive", "positive")):
        assert list(getattr(found, name)) == wanted[column].tolist()
    assert bool(found.history) == (busiest >= len(frame[["item_id", "timestamp", "event"]].drop_duplicates()))


@pytest.mark.parametrize("least", [None, 3.5])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("positive", [None, ["buy", "rate"]])
def test_a_later_event_counts_beside_those_that_count_as_if_all_were_read(
    least: float | None, keep: bool, positive: list[str] | None
) -> None:
    prepare = {"positive_events": positive, "positive_min_value": least, "keep_repeats": keep}
    rules = Rules({"event_types": ["view", "buy", "rate"], "prepare": prepare}, has_times=True)
    random, told = np.random.default_rng(0), list[Event]()
    for second in range(400):
        item, name, value = f"i{random.integers(12)}", ("view", "buy", "rate")[random.integers(3)], (None, 1.0, 5.0)[random.integers(3)]
        event, before = Event(str(second), "u", item, name, second * 1000, value), rules.kept(told)
        told.append(event)
        earlier = [rules.positive(one) for one in before if one.item_id == item]
        assert rules.kept(told) == ([*before, event] if rules.adds(event, earlier) else before)


def test_a_model_of_a_table_without_names_takes_events_of_any_name() -> None:
    """By day people name what happened; to such a model all of it is the one thing that it knows."""
    meta = {"event_types": ["interaction"], "prepare": {"keep_repeats": True}}
    rules, events = (
        Rules(meta, has_times=True),
        [Event("1", "u", "i1", "rating", 1000, 5.0), Event("2", "u", "i2", "interaction", 2000, None)],
    )
    assert rules.query("u", events).history == ["i1", "i2"]
    assert rules.code("rating") == rules.code("interaction") == 0
    EventNames.of(meta).check(["rating"])

    named = {"event_types": ["view"], "prepare": {"keep_repeats": True}}
    assert not Rules(named, has_times=True).query("u", events).history
    with pytest.raises(InputError, match="knows no event 'rating'"):
        EventNames.of(named).check(["rating"])
