"""Tables read a block at a time: collected, checked and prepared as if they had been read whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from expectations import base
from expectations.engine import gxe
from expectations.rules import Contract, TableRule
from expectations.run import check, read_checked
from nightloom.config import DataConfig, config_from_dict
from nightloom.core.errors import InputError
from nightloom.core.sequences import Sequences
from nightloom.data import growing
from nightloom.data.collect import collect
from nightloom.data.preparation import rows as of_rows
from nightloom.data.preparation.prepare import prepare
from nightloom.data.sources import files
from nightloom.data.tables import coded, quarantine
from nightloom.data.tables.blocks import SpeltWriter, StoredTable, Texts, in_blocks
from nightloom.data.tables.coded import spelt
from nightloom.data.tables.schema import Tables
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.data.tables.streamed import Streamed, stream
from tests.sections import of_prepare
from tests.unit.expectations.test_coded_events import broken, pages
from tests.unit.expectations.test_contracts import NOW, make
from tests.unit.expectations.test_contracts import config as of_contract

STAMP = 1_700_000_000


def small(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Read, sort and write so few rows at a time."""
    monkeypatch.setattr(coded, "ROW_GROUP", rows)
    monkeypatch.setattr(of_rows, "BUCKET", rows)
    monkeypatch.setattr(files, "PIECE", rows)
    monkeypatch.setattr(quarantine, "HELD_ROWS", 2)


def log(seed: int, rows: int = 300) -> pd.DataFrame:
    """Events of a few users with duplicates, busy days, repeats, ties and rare items."""
    random = np.random.default_rng(seed)
    events = pd.DataFrame(
        {
            "user_id": pd.Series(random.integers(0, 12, rows).astype(str), dtype="str"),
            "item_id": pd.Series((random.random(rows) ** 2 * 30).astype(int).astype(str), dtype="str"),
            "timestamp": STAMP + random.integers(0, 40, rows) * 3600 * 7 * (1 + seed),
            "event": pd.Series(random.choice(["view", "view", "buy"], rows), dtype="str"),
            "value": random.integers(1, 6, rows).astype(float),
        }
    )
    events.loc[events.index[-20:], ["user_id", "timestamp"]] = ["robot", STAMP]
    events["timestamp"] = pd.to_datetime(events["timestamp"], unit="s", utc=True).astype("datetime64[ms, UTC]")
    return pd.concat([events, events.iloc[::17]], ignore_index=True).sort_values("timestamp" if seed % 2 else "item_id", ignore_index=True)


def stored(frame: pd.DataFrame, path: Path) -> StoredTable:
    with SpeltWriter(path, frame.iloc[:0]) as writer:
        for block in in_blocks(frame):
            writer.add(block)
    return StoredTable(path)


@pytest.mark.parametrize("rows", [7, 1000])
def test_a_table_on_disk_gives_its_rows_and_columns(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = broken()
    frame.to_parquet(tmp_path / "pandas.parquet", index=False, row_group_size=rows)
    small(monkeypatch, rows)
    table = stored(frame, tmp_path / "ours.parquet")
    assert (tmp_path / "ours.parquet").read_bytes() == (tmp_path / "pandas.parquet").read_bytes()
    blocks = list(table.blocks())
    assert max(map(len, blocks)) <= rows
    pd.testing.assert_frame_equal(pd.concat(map(spelt, blocks)), frame)
    assert len(table) == len(frame)
    assert list(table) == list(frame)
    assert "value" in table
    pd.testing.assert_series_equal(table["value"], frame["value"])
    assert table.groupby("item_id", observed=True).size().sum() == frame["item_id"].notna().sum()
    assert [len(block) for block in in_blocks(stored(frame.iloc[:0], tmp_path / "none.parquet"))] == [0]


def test_what_is_no_name_is_asked_of_the_whole_table(tmp_path: Path) -> None:
    """A suite of one's own may treat events as a frame."""
    frame = broken()
    table = stored(frame, tmp_path / "ours.parquet")
    mask = frame["value"].notna()
    pd.testing.assert_frame_equal(spelt(table[mask]), frame[mask])
    pd.testing.assert_frame_equal(spelt(table.head(3)), frame.head(3))
    pd.testing.assert_frame_equal(spelt(table[["value", "user_id"]]), frame[["value", "user_id"]])


def test_texts_are_numbered_as_they_come() -> None:
    texts, column = Texts(), pd.Series(["b", None, "a", "b", "c"], dtype="str")
    assert texts.numbers(column.iloc[:3]).tolist() == [0, -1, 1]
    held = coded.coded(column.to_frame("one"))["one"]
    assert texts.numbers(held.iloc[3:]).tolist() == [0, 2]
    assert texts.index().tolist() == ["b", "a", "c"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("timed", [True, False])
def test_events_are_prepared_in_buckets_as_in_one(seed: int, timed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = log(seed)
    if not timed:
        events = events.drop(columns="timestamp").assign(order=np.random.default_rng(seed).integers(0, 50, len(events)))
    known = pd.DataFrame({"item_id": pd.Series(range(40), dtype="int64").astype("str"), "title": "t"})
    links = pd.DataFrame({"user_id": ["1", "2", "3"], "other_id": ["2", "1", "99"]}, dtype="str")
    tables = Tables(events, known if seed % 2 else None, None, links, features={"title": "text"} if seed % 2 else {})
    limits = {"min_user_events": 8, "min_item_events": 6, "max_user_events_per_day": 12, "positive_events": ["buy"]}
    protocols = ["streaming", "temporal", "leave_one_out"]
    run = config_from_dict(
        {
            "name": "shop",
            "data": {"events": "e.csv"},
            "prepare": {**limits, "keep_repeats": seed > 1},
            "evaluation": {"protocols": protocols, "exclude_seen": seed != 3},
        }
    )
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = prepare(tables, tmp_path / "whole", **of_prepare(run))
    small(monkeypatch, 16)
    tables.events = stored(events, tmp_path / "events.parquet")  # type: ignore[assignment]
    assert prepare(tables, tmp_path / "parts", **of_prepare(run)) == whole
    assert sum(whole["removed"].values()) > 10
    for protocol in protocols:
        one, other = (Sequences.load(tmp_path / name / f"sequences_{protocol}.npz") for name in ("whole", "parts"))
        for field in Sequences.__dataclass_fields__:
            assert np.array_equal(getattr(one, field), getattr(other, field)), field
    for name in ("removed.parquet", "users.parquet", "items.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "whole" / name), pd.read_parquet(tmp_path / "parts" / name))
    assert json.loads((tmp_path / "whole" / "meta.json").read_text()) == json.loads((tmp_path / "parts" / "meta.json").read_text())
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == sorted(path.name for path in (tmp_path / "parts").iterdir())


@pytest.mark.parametrize("suite", ["base", "news"])
def test_events_are_checked_in_blocks_as_in_one(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = broken()
    events.loc[events.index[10:60], "event"] = "impression"
    events.loc[events.index[60:80], "event"] = "click"
    events.loc[events.index[70], ["user_id", "item_id", "timestamp"]] = events.loc[events.index[20], ["user_id", "item_id", "timestamp"]]
    events.loc[events.index[90:95], "value"] = None
    links = pd.DataFrame({"user_id": ["u1", "u2", "nobody"], "other_id": ["u2", "u2", "u1"]}, dtype="str")
    found: dict[str, Any] = {}
    run = of_contract(suite=suite, max_bad_share=0.9, allowed_events=["rating", "impression", "click"])
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        if name == "parts":
            small(monkeypatch, 9)
        tables = Tables(events, make().items, None, links, features={"title": "text"})
        found[name] = check(tables, run, tmp_path / name, None, NOW)
    assert found["whole"] == found["parts"]
    assert found["whole"]["quarantined"]["events"] > 5 + (suite == "news")
    assert (tmp_path / "whole" / "checks.json").read_bytes() == (tmp_path / "parts" / "checks.json").read_bytes()
    for place in ("events.parquet", "items.parquet", "links.parquet", "quarantine/events.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "whole" / place), pd.read_parquet(tmp_path / "parts" / place))
    assert pages(tmp_path / "whole") == pages(tmp_path / "parts")
    assert len(read_checked(tmp_path / "parts", in_blocks=True).events) == found["parts"]["rows"]["events"]


def test_a_suite_without_row_rules_and_with_a_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = base.contracts
    monkeypatch.setattr(base, "contracts", lambda *given: usual(*given) | {"events": Contract((), (few,))})
    count = gxe.ExpectTableRowCountToBeBetween(max_value=100, row_condition='user_id=="u1"', condition_parser="pandas")
    few = TableRule("", "events of one", count, "Look at it.")
    (tmp_path / "checked").mkdir()
    found = check(make(), of_contract(min_events=1), tmp_path / "checked", None, NOW)
    assert found["quarantined"].get("events", 0) == 0
    assert found["rows"]["events"] == len(make().events) > 100


def raw(seed: int) -> pd.DataFrame:
    events = spelt(log(seed)).assign(channel=7)
    seconds = events.pop("timestamp").astype("int64") // (1 if seed % 2 else 1000)
    return events.assign(at=seconds.astype("Int64"))


ODD = {
    "regular": lambda events: events,
    "bad rows": lambda events: events.assign(
        at=events["at"].mask(events.index % 50 == 3), user_id=events["user_id"].mask(events.index == 5)
    ),
    "missing ids in words": lambda events: events.assign(user_id=events["user_id"].mask(events.index % 40 == 2, "null")),
    "names that may be missing": lambda events: events.assign(event=events["event"].mask(events.index % 90 == 2, "null")),
    "a unit that changes": lambda events: events.assign(at=events["at"].where(events.index < 304, events["at"] * 1000)),
    "codes that become numbers": lambda events: events.assign(channel=events["channel"].where(events.index < 200, 7.5)),
    "an id that lost digits": lambda events: events.assign(item_id=events["item_id"].mask(events.index == 310, "1.23E+15")),
    "days that are not all at midnight": lambda events: events.assign(
        channel=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.where(events.index < 200, 0, 1), unit="h")
    ),
    "durations": lambda events: events.assign(channel=pd.to_timedelta(np.where(events.index < 200, 24, 25), unit="h")),
    "no users in common": lambda events: events.assign(item_id="x" + events["item_id"]),
}


@pytest.mark.parametrize("odd", list(ODD))
@pytest.mark.parametrize("form", ["parquet", "csv", "folder"])
def test_a_source_is_collected_in_pieces_as_in_one(odd: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = ODD[odd](raw(len(odd) % 2))
    place = tmp_path / f"events.{form}"
    if form == "parquet":
        events.to_parquet(place, index=False, row_group_size=100)
    elif form == "csv":
        events.to_csv(place, index=False)
    else:
        place.mkdir()
        for part in range(4):
            events.iloc[part * 80 : (part + 1) * 80].to_csv(place / f"day={part}.csv", index=False)
    items = pd.DataFrame({"item_id": pd.Series(range(40)).astype(str), "title": "t"})
    items.to_csv(tmp_path / "items.csv", index=False)
    columns = {one: one for one in ("user_id", "item_id", "event", "value", "channel")} | {"timestamp": "at"}
    data = DataConfig(events=str(place), items=str(tmp_path / "items.csv"), store="none", columns={"events": columns})
    told: dict[str, Any] = {}
    streamed: list[Streamed | None] = []
    monkeypatch.setattr(growing, "stream", lambda *given: streamed.append(stream(*given)) or streamed[-1])
    for name, rows in {"whole": None, "pieces": 90}.items():
        small(monkeypatch, 90)  # rows of a part count in the hash
        if rows is None:
            monkeypatch.setattr(files, "PIECE", 1 << 20)
        try:
            snapshot = collect("shop", data, tmp_path / name)
        except InputError as error:
            told[name] = str(error)
            continue
        tables = read_snapshot(snapshot.path)
        rejected = {table: aside.to_dict("records") for table, aside in tables.rejected.items()}
        told[name] = (snapshot.hash, snapshot.counts, snapshot.rejected, snapshot.features, snapshot.source, rejected)
        told[f"events of {name}"] = tables.events
    assert told["whole"] == told["pieces"]
    assert isinstance(told["whole"], str) == (odd in ("an id that lost digits", "no users in common"))
    if "events of whole" in told:
        pd.testing.assert_frame_equal(told["events of whole"], told["events of pieces"])
        as_text = form != "parquet" and odd in ("days that are not all at midnight", "durations")
        in_pieces = as_text or odd in ("regular", "bad rows", "missing ids in words")
        assert [one is not None for one in streamed] == [in_pieces]
        for name in ("whole", "pieces"):
            (written,) = (tmp_path / name / "snapshots" / "shop").glob("*/events.parquet")
            assert [pq.read_metadata(part).num_rows for part in sorted(written.iterdir())][:-1] == [90] * 3
    assert not list((tmp_path / "pieces" / "snapshots" / "shop").glob(".partial-*"))
