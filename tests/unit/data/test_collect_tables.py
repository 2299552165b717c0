from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from nightloom.config import RunConfig, load_config
from nightloom.core.errors import InputError
from nightloom.data.collect import collect
from nightloom.data.tables.snapshot import read_snapshot
from tests.sections import of_collect

YAML = """
name: mine
data:
  events: ratings.csv
  items: movies.csv
  columns:
    events: {user_id: userId, item_id: movieId, timestamp: timestamp, value: rating}
    items: {item_id: movieId, title: title, genres: genres}
"""


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,01,4.0,964982703\n2,02,?,964981247\n2,01,3.5,964982224\n")
    (tmp_path / "movies.csv").write_text('movieId,title,genres,link\n01,"Heat, the film",Crime|War,x\n02,,Crime,y\n')
    (tmp_path / "mine.yaml").write_text(YAML)
    return load_config(tmp_path / "mine.yaml")


def test_own_csv_files_become_a_snapshot(config: RunConfig, tmp_path: Path) -> None:
    said: list[str] = []
    snapshot = collect(config.name, config.data, tmp_path / "mlruns", said.append)
    assert snapshot.path == tmp_path / "mlruns/snapshots/mine" / snapshot.hash[:16]
    assert snapshot.counts == {"events": 2, "items": 2}
    assert snapshot.rejected == {"events": 1}
    assert snapshot.licence is None
    assert snapshot.source == {"events": str(tmp_path / "ratings.csv"), "items": str(tmp_path / "movies.csv")}
    assert said[0] == f"read 3 events from {tmp_path / 'ratings.csv'}"
    assert said[-1] == "events: 1 rows cannot be read, most often (1): value is not a number"
    tables = read_snapshot(snapshot.path)
    assert tables.events["item_id"].tolist() == ["01", "01"]
    assert tables.items is not None
    assert tables.items["title"].tolist()[0] == "Heat, the film"
    assert tables.rejected["events"]["row"].tolist() == [2]


def test_unchanged_tables_are_the_same_snapshot_and_a_correction_is_another(config: RunConfig, tmp_path: Path) -> None:
    first = collect(config.name, config.data, tmp_path)
    assert collect(config.name, config.data, tmp_path) == first
    path = tmp_path / "ratings.csv"
    path.write_text(path.read_text().replace("?", "5"))
    second = collect(config.name, config.data, tmp_path)
    assert second.counts["events"] == 3
    assert second.rejected == {}
    assert len(list((tmp_path / "snapshots/mine").iterdir())) == 2


def test_the_same_rows_from_a_database_are_the_same_snapshot(config: RunConfig, tmp_path: Path) -> None:
    from_csv = collect(config.name, config.data, tmp_path)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection, connection:
        pd.read_csv(tmp_path / "ratings.csv", dtype="str").to_sql("ratings", connection, index=False)
    address = f"sqlite:///{tmp_path}/shop.db?table=ratings"
    data = config.data.model_copy(update={"events": address})
    snapshot = collect(*of_collect(config.model_copy(update={"data": data})), tmp_path / "other")
    assert snapshot.hash == from_csv.hash
    assert snapshot.source["events"].endswith("shop.db (table ratings)")


def test_a_named_set_brings_its_licence(tmp_path: Path) -> None:
    config = RunConfig.model_validate({"name": "films", "data": {"set": "movies-small"}})
    try:
        snapshot = collect(config.name, config.data, tmp_path)
    except InputError as error:
        if "cannot be fetched" not in str(error):
            raise
        pytest.skip(str(error))
    assert snapshot.counts == {"events": 100_000, "items": 1682, "users": 943}
    said = json.loads((snapshot.path / "snapshot.json").read_text())
    assert "10.1145/2827872" in said["licence"]
    assert said["source"]["set"] == "movies-small"
