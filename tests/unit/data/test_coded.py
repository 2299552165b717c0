"""Text held as codes: what is written, cleaned and looked up is what it would be if every row were spelt out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.data.preparation.clean import clean
from nightloom.data.tables.coded import (
    coded,
    codes_of,
    is_coded,
    read_coded,
    spelt,
)


def table_of(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(rows)
    users = pd.Series([f"u{code}" for code in rng.integers(0, 9, rows)], dtype="str").mask(rng.random(rows) < 0.1)
    times = pd.Series(pd.to_datetime(rng.integers(0, 10**9, rows), unit="s", utc=True)).astype("datetime64[ms, UTC]")
    items = pd.Series(rng.choice(["é", "007", "a b"], rows), dtype="str")
    return pd.DataFrame(
        {"user_id": users, "item_id": items, "timestamp": times, "value": rng.random(rows), "place": rng.integers(0, 5, rows)}
    )


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_a_table_is_spelt_as_it_was(rows: int, tmp_path: Path) -> None:
    table = table_of(rows)
    held = coded(table)
    assert [is_coded(held[column]) for column in held] == [True, True, False, False, False]
    pd.testing.assert_frame_equal(spelt(held), table)
    table.to_parquet(tmp_path / "spelt.parquet", index=False)
    read = read_coded(tmp_path / "spelt.parquet")
    assert is_coded(read["user_id"])
    assert is_coded(read["item_id"])
    pd.testing.assert_frame_equal(spelt(read), table)


def test_codes_say_what_the_text_says() -> None:
    for text in (table_of(40)["user_id"], table_of(40)["user_id"].iloc[5:9], table_of(40)["user_id"].iloc[:0]):
        held = coded(text.to_frame())["user_id"]
        assert (codes_of(held) == pd.factorize(text)[0]).all()


LIMITS = st.builds(
    SimpleNamespace,
    max_user_events_per_day=st.integers(1, 4),
    keep_repeats=st.booleans(),
    min_user_events=st.integers(1, 3),
    min_item_events=st.integers(0, 3),
    positive_events=st.sampled_from([None, ["buy"]]),
    positive_min_value=st.none(),
)


def spelt_out(events: pd.DataFrame, config: Any) -> list[str]:
    """Why each event is removed ("" where it stays), by the rules as people say them, one event after the other."""
    reasons = [""] * len(events)
    rows = list(events[["user_id", "item_id", "timestamp", "event"]].itertuples(index=False, name=None))
    for place, row in enumerate(rows):
        reasons[place] = "duplicate" if row in rows[:place] else ""
    alive = [place for place, reason in enumerate(reasons) if not reason]
    days = [(rows[place][0], rows[place][2].date()) for place in alive]
    busy = {user for user, day in days if days.count((user, day)) > config.max_user_events_per_day}
    for place in alive:
        reasons[place] = "outlier" if rows[place][0] in busy else ""
    if not config.keep_repeats:
        known, known_good = set(), set()
        for place in sorted((place for place in alive if not reasons[place]), key=lambda place: (rows[place][2], place)):
            pair, good = rows[place][:2], config.positive_events is None or rows[place][3] in config.positive_events
            if pair in known and (not good or pair in known_good):
                reasons[place] = "repeat"
            known.add(pair)
            known_good |= {pair} if good else set()
    while True:
        before = list(reasons)
        for at, least in ((0, config.min_user_events), (1, config.min_item_events)):
            there = [rows[place][at] for place, reason in enumerate(reasons) if not reason]
            for place, reason in enumerate(list(reasons)):
                if not reason and there.count(rows[place][at]) < least:
                    reasons[place] = "noise"
        if reasons == before:
            return reasons


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 5), st.sampled_from(["view", "buy"])), max_size=25
    ),
    config=LIMITS,
)
def test_events_are_cleaned_by_the_rules_as_people_say_them(rows: list[tuple[str, str, int, str]], config: Any) -> None:
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "event"]).astype(
        dict.fromkeys(("user_id", "item_id", "event"), "str")
    )
    events["timestamp"] = (pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(events["timestamp"] * 8, unit="h")).astype(
        "datetime64[ms, UTC]"
    )
    wanted = spelt_out(events, config)
    kept, removed = clean(events, config)
    again, away = clean(coded(events), config)
    pd.testing.assert_frame_equal(spelt(again), kept)
    pd.testing.assert_frame_equal(spelt(away), removed)
    pd.testing.assert_frame_equal(kept, events[np.array([not reason for reason in wanted], dtype=bool)].reset_index(drop=True))
    assert [reason.split(":")[0] for reason in removed["reason"]] == [reason for reason in wanted if reason]
