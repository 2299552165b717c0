"""A transfer's source ends where the target's validation begins, whatever its own split says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from prefect.logging import disable_run_logger

from nightloom.config import RunConfig, config_from_dict
from nightloom.core.errors import InputError
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.prepare import prepare
from nightloom.data.subsets.time_cutoff import cutoff_of, ended
from nightloom.data.tables.schema import Tables
from nightloom.experiments.transfer import write_source
from nightloom.runs.stages import Manifest, Night
from tasks.transfer import train_source
from tests.sections import of_prepare

HOUR, USERS, EVENTS = 3600, 10, 200
START = 1_400_000_000
FILES = "sequences_temporal.npz", "meta.json"


def config(protocol: str = "temporal") -> RunConfig:
    shares = {"validation_share": 0.1, "test_share": 0.1}
    return config_from_dict({"name": "books", "data": {"events": "e.csv"}, "prepare": shares, "evaluation": {"protocols": [protocol]}})


def domain(folder: Path, first_hour: int, *, timed: bool = True, protocol: str = "temporal") -> Path:
    """An event an hour, by ten users in turn, all positive; its own split is 8 : 1 : 1."""
    hours = first_hour + np.arange(EVENTS)
    events = pd.DataFrame({"user_id": [f"{folder.name}{n % USERS}" for n in range(EVENTS)], "event": "buy"})
    events["item_id"] = [f"i{n // USERS}" for n in range(EVENTS)]
    if timed:
        events["timestamp"] = pd.to_datetime(START + HOUR * hours, unit="s", utc=True)
    else:
        events["order"] = hours
    items = pd.DataFrame({"item_id": events["item_id"].unique(), "title": "a title"})
    folder.mkdir()
    prepare(Tables(events, items, features={"title": "text"}), folder, **of_prepare(config(protocol)))
    return folder


def write_part(source: Path, target: Path, folder: Path, protocol: str = "temporal") -> Mapping[str, Any]:
    return write_source(source, target, protocol, folder, same_users=True)


def test_a_source_that_goes_on_into_the_targets_future_is_cut_there(tmp_path: Path) -> None:
    target, source = domain(tmp_path / "target", 0), domain(tmp_path / "source", 80)
    cutoff = json.loads((target / "meta.json").read_text())["cutoffs"]["temporal"]["validation"]
    assert cutoff == START + 160 * HOUR
    figures = write_part(source, target, tmp_path / "laid")
    assert (figures["users"], figures["events"], figures["later"]) == (USERS, 80, 100)  # of the 180 before its own test
    laid, meta = Sequences.load(tmp_path / "laid" / FILES[0]), json.loads((tmp_path / "laid" / FILES[1]).read_text())
    whole, asked = laid.train(with_validation=True), laid.queries("validation")
    assert len(whole.times) == 80
    assert whole.times.max() == cutoff - HOUR == meta["trained_until"]["temporal"]
    assert len(laid.train().times) == 71  # a ninth of them chooses the epoch, as a ninth of what was no test did before
    assert meta["cutoffs"]["temporal"] == {"validation": cutoff - 9 * HOUR, "test": cutoff}
    assert len(asked)
    assert cutoff - 9 * HOUR <= asked.histories.request_time.min() <= asked.histories.request_time.max() < cutoff
    assert len(laid.items) == EVENTS  # what came later lies in the test part


def test_a_source_that_ends_before_keeps_its_own_split(tmp_path: Path) -> None:
    target, source = domain(tmp_path / "target", 0), domain(tmp_path / "source", -20)  # its test begins at the target's validation
    figures = write_part(source, target, tmp_path / "laid")
    assert (figures["events"], figures["later"]) == (180, 0)
    laid, own = (Sequences.load(place / FILES[0]) for place in (tmp_path / "laid", source))
    np.testing.assert_array_equal(laid.train_end, own.train_end)
    np.testing.assert_array_equal(laid.validation_end, own.validation_end)
    assert (tmp_path / "laid" / FILES[1]).read_bytes() == (source / FILES[1]).read_bytes()


def test_leave_one_out_knows_no_border(tmp_path: Path) -> None:
    """And needs no times."""
    one = "leave_one_out"
    target, source = domain(tmp_path / "target", 0, protocol=one), domain(tmp_path / "source", 900, timed=False, protocol=one)
    assert cutoff_of(target, source, one) is None
    assert write_part(source, target, tmp_path / "laid", one) == {"users": USERS, "events": EVENTS - USERS, "held_out": 0}


@pytest.mark.parametrize("first_hour", [160, 159])
def test_a_source_of_the_future_is_refused_with_dates_and_counts(tmp_path: Path, first_hour: int) -> None:
    """One event alone can not be learned from and choose the epoch too."""
    target, source = domain(tmp_path / "target", 0), domain(tmp_path / "source", first_hour)
    with pytest.raises(InputError) as refused:
        write_part(source, target, tmp_path / "laid")
    early = 160 - first_hour
    assert "validation begins at 2014-05-20 08:53:20 UTC" in str(refused.value)
    assert f"source's 200 events (2014-05-20 0{8 - early}:53:20 UTC to 2014-05-28" in str(refused.value)
    assert f"{early} are earlier, {early} of them positive" in str(refused.value)
    assert "leave_one_out" in str(refused.value)
    assert not (tmp_path / "laid").exists()


@pytest.mark.parametrize("timeless", ["target", "source"])
def test_without_times_nobody_can_tell(tmp_path: Path, timeless: str) -> None:
    target, source = (domain(tmp_path / name, 0, timed=name != timeless) for name in ("target", "source"))
    with pytest.raises(InputError, match=r"no timestamps to tell.*leave_one_out"):
        write_part(source, target, tmp_path / "laid")


def test_the_sources_stage_learns_from_what_was_cut_and_has_another_key_when_the_border_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Sequences] = []

    def learn(_config: Any, protocol: str, prepared: Path, *_: Any) -> dict[str, float]:
        read.append(Sequences.load(prepared / f"sequences_{protocol}.npz"))
        return {"validation_ndcg_at_10": 0.5}

    monkeypatch.setattr("tasks.transfer.fine_tune", learn)
    source, keys = domain(tmp_path / "source", 80), set()
    made = [Manifest(stage, stage, str(source), figures={"users": USERS}) for stage in ("prepare", "load_pretrained")]
    for first_hour in (0, -40):
        target = domain(tmp_path / f"target{first_hour}", first_hour)
        with disable_run_logger():
            trained = train_source.fn(
                Night(config(), "20260101-020000", tmp_path), *made, Manifest("prepare", target.name, str(target)), True, False
            )
        keys.add(trained.key)
        assert read[-1].train(with_validation=True).times.max() == START + HOUR * (first_hour + 159)
        assert trained.figures["later"] == 100 - first_hour
        assert trained.figures["left_out"] == 0
    assert len(keys) == 2


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=12), min_size=1, max_size=8),
    st.integers(-1, 42),
    st.integers(0, 42),
    st.integers(0, 42),
)
def test_nothing_from_the_border_on_is_learned_or_asked(
    people: list[list[tuple[int, bool]]], cutoff: int, validation: int, test: int
) -> None:
    rows = [event for one in people for event in sorted(one, key=lambda event: event[0])]
    offsets, times = np.cumsum([0, *map(len, people)]).astype(np.int64), np.array([time for time, _ in rows], dtype=np.int64)
    positive, none = np.array([flag for _, flag in rows]), np.zeros(len(rows))
    ends = [offsets[:-1] + np.array([sum(time < at for time, _ in one) for one in people]) for at in (min(validation, test), test)]
    was = Sequences(offsets, none.astype(np.int32), times, none.astype(np.int16), positive, *ends, 1)
    try:
        split = ended(was, cutoff)
    except InputError:
        reject()  # too little or too coarse: refused, which a test above pins
    now = was if split is None else replace(was, train_end=split.train_end, validation_end=split.validation_end)
    learned = now.train(with_validation=True)
    assert not (learned.times >= cutoff).any()
    if split is None:
        assert not (was.train(with_validation=True).times >= cutoff).any()
        return
    assert len(learned.times) == (times < cutoff).sum()
    train, held = now.train(), positive & (times >= split.validation_cutoff) & (times < cutoff)
    assert train.positive.any()
    assert held.any()
    assert not (train.times >= split.validation_cutoff).any()
