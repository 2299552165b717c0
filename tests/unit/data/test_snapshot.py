from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.files import read_table
from nightloom.data.tables.canonical import canonical
from nightloom.data.tables.schema import Tables
from nightloom.data.tables.snapshot import Snapshot, content_hash, read_snapshot, write_snapshot


@pytest.fixture
def frames() -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(5)
    events = pd.DataFrame(
        {
            "user_id": random.integers(1, 20, 300),
            "item_id": [f"i{n:03}" for n in random.integers(0, 40, 300)],
            "timestamp": pd.to_datetime(random.integers(1_600_000_000_000, 1_700_000_000_000, 300), unit="ms", utc=True),
            "value": pd.array(random.choice([1, 2, None], 300), dtype="Int64"),
        }
    )
    items = pd.DataFrame({"item_id": [f"i{n:03}" for n in range(40)], "year": pd.array([1950, None] * 20, dtype="Int64")})
    items["title"] = [f"Müller, the {n}th" if n % 5 else None for n in range(40)]
    return {"events": events, "items": items}


def read(folder: Path, ending: str) -> Tables:
    data = DataConfig(events=str(folder / f"events{ending}"), items=str(folder / f"items{ending}"))
    return canonical({name: read_table(getattr(data, name), data, name) for name in ("events", "items")}, data)


@pytest.fixture
def tables(frames: dict[str, pd.DataFrame], tmp_path: Path) -> Tables:
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    return read(tmp_path, ".csv")


def test_the_same_rows_from_csv_and_parquet_have_one_hash(frames: dict[str, pd.DataFrame], tables: Tables, tmp_path: Path) -> None:
    for name, frame in frames.items():
        table = pa.Table.from_pandas(frame[frame.columns[::-1]], preserve_index=False)
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=7)
        (tmp_path / f"{name}-parts").mkdir()
        for part in range(3):
            pq.write_table(table.slice(part * 100, 100), tmp_path / f"{name}-parts" / f"{part}.parquet", compression="gzip")
    expected = content_hash(tables)
    assert content_hash(read(tmp_path, ".parquet")) == expected
    assert content_hash(read(tmp_path, "-parts")) == expected


def test_written_once_and_read_back(tables: Tables, tmp_path: Path) -> None:
    tables.rejected["events"] = pd.DataFrame({"file": "e.csv", "row": [3], "raw": ["{}"], "reason": ["user_id is missing"]})
    snapshot = write_snapshot(tables, tmp_path / "home", {"events": "e.csv"}, "free")
    assert snapshot.path == tmp_path / "home" / snapshot.hash[:16]
    assert snapshot.counts == {"events": 300, "items": 40}
    assert snapshot.rejected == {"events": 1}
    assert (snapshot.licence, snapshot.source) == ("free", {"events": "e.csv"})
    assert snapshot.features == {"year": "number", "title": "text"}
    assert {path.name for path in snapshot.path.iterdir()} == {
        "events.parquet",
        "items.parquet",
        "rejected_events.parquet",
        "snapshot.json",
    }
    assert [path.name for path in (tmp_path / "home").iterdir()] == [snapshot.hash[:16]]

    back = read_snapshot(snapshot.path)
    assert content_hash(back) == snapshot.hash
    for name, table in tables.present().items():
        pd.testing.assert_frame_equal(back.present()[name], table)
    pd.testing.assert_frame_equal(back.rejected["events"], tables.rejected["events"], check_dtype=False)
    assert back.features == tables.features


def test_an_existing_snapshot_is_left_as_it_is(tables: Tables, tmp_path: Path) -> None:
    first = write_snapshot(tables, tmp_path, {"events": "a"})
    written = {path: path.stat().st_mtime_ns for path in first.path.iterdir()}
    assert write_snapshot(tables, tmp_path, {"events": "b"}) == first
    assert {path: path.stat().st_mtime_ns for path in first.path.iterdir()} == written


def test_a_write_that_fails_leaves_nothing_behind(tables: Tables, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    blocked = home / content_hash(tables)[:16]
    blocked.touch()
    with pytest.raises(NotADirectoryError):
        write_snapshot(tables, home, {})
    assert list(home.iterdir()) == [blocked]


def changes(tables: Tables) -> dict[str, Tables]:
    events, items = tables.events, tables.items
    assert items is not None
    rejected = {"events": pd.DataFrame({"file": ["e"], "row": [1], "raw": ["x"], "reason": ["bad"]})}
    return {
        "a value": Tables(events.assign(value=events["value"].replace(1.0, 1.5)), items, features=tables.features),
        "a value is missing": Tables(
            events.assign(value=events["value"].mask(events.index == events["value"].first_valid_index())), items, features=tables.features
        ),
        "a time": Tables(events.assign(timestamp=events["timestamp"] + pd.Timedelta(1, "ms")), items, features=tables.features),
        "the order of rows": Tables(events.iloc[::-1].reset_index(drop=True), items, features=tables.features),
        "a row less": Tables(events.iloc[:-1], items, features=tables.features),
        "a text moves over": Tables(events, items.assign(title=items["title"].shift()), features=tables.features),
        "no text instead of empty text": Tables(events, items.assign(title=items["title"].fillna("")), features=tables.features),
        "a name of a column": Tables(events, items.rename(columns={"title": "name"}), features=tables.features),
        "another table": Tables(events, None, items, features=tables.features),
        "kinds": Tables(events, items, features=tables.features | {"year": "category"}),
        "rejected rows": Tables(events, items, features=tables.features, rejected=rejected),
    }


def test_every_change_of_content_changes_the_hash(tables: Tables) -> None:
    hashes = {content_hash(changed) for changed in changes(tables).values()} | {content_hash(tables)}
    assert len(hashes) == len(changes(tables)) + 1


@given(st.lists(st.one_of(st.none(), st.text(max_size=4)), min_size=1, max_size=6), st.data())
def test_text_is_hashed_value_by_value(values: list[str | None], data: st.DataObject) -> None:
    def digest(texts: list[str | None]) -> str:
        return content_hash(Tables(pd.DataFrame({"user_id": pd.Series(texts, dtype="str")})))

    other = data.draw(st.lists(st.sampled_from([*values, None, "", *(f"{a}{b}" for a in values for b in values)]), min_size=1, max_size=6))
    assert (digest(values) == digest(other)) == (values == other)
    whole = pd.DataFrame({"user_id": pd.Series(["x", *values], dtype="str")})
    assert content_hash(Tables(whole.iloc[1:])) == digest(values)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not a snapshot"),
        ("{", r"snapshot\.json: damaged, it can not be read"),
        ("{}", r"snapshot\.json: damaged, it has no digest"),
    ],
)
def test_a_folder_that_is_no_snapshot(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "snapshot.json").write_text(content)
    for reader in (Snapshot.load, read_snapshot):
        with pytest.raises(InputError, match=rf"{said}.*Run collect again"):
            reader(tmp_path)


def test_the_description_is_plain_json(tables: Tables, tmp_path: Path) -> None:
    said = json.loads((write_snapshot(tables, tmp_path, {}).path / "snapshot.json").read_text())
    assert set(said) == {"hash", "counts", "features", "rejected", "licence", "source", "created", "files", "sha256"}
    assert len(said["hash"]) == 64
