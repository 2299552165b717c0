from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.files import read_table
from nightloom.data.sources.raw import RawTable
from nightloom.data.sources.sql import PASSWORD

needs_psycopg2 = pytest.mark.skipif(importlib.util.find_spec("psycopg2") is None, reason="psycopg2 is not installed")


def read(address: str) -> RawTable:
    # The address goes around the config, which refuses a password in it, so that messages are held to hide one all the same.
    return read_table(address, DataConfig(events="elsewhere.csv"), "events")


def refusal(address: str) -> str:
    with pytest.raises(InputError) as caught:
        read(address)
    error: BaseException | None = caught.value
    while error is not None:  # what a traceback would show
        assert "s3cret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return str(caught.value)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table events (n integer primary key, user_id integer, item_id text, ts integer)")
        connection.executemany("insert into events values (?, ?, ?, ?)", [(3, None, "007", 30), (1, 5, "b", 10), (2, 6, "c", 20)])
        connection.execute('create view "latest events" as select user_id, item_id from events where ts > 15')
        connection.execute("create table empty (user_id integer, item_id text)")
    return path


def test_a_table_is_read_in_the_order_of_its_key(database: Path) -> None:
    table = read(f"sqlite:///{database}?table=events")
    assert table.frame["item_id"].tolist() == ["b", "c", "007"]
    assert table.frame["user_id"].astype("str").tolist()[:2] == ["5", "6"]
    assert table.frame["user_id"].isna().tolist() == [False, False, True]
    assert "table events" in table.place


def test_a_view_and_a_query(database: Path) -> None:
    assert len(read(f"sqlite:///{database}?table=latest events").frame) == 2
    query = "select item_id, ':x' as note from events where item_id like '%b'"
    assert read(f"sqlite:///{database}?query={query}").frame.to_dict("list") == {"item_id": ["b"], "note": [":x"]}


def test_unknown_table_names_those_there(database: Path) -> None:
    message = refusal(f"sqlite:///{database}?table=event")
    assert "no such table" in message
    assert "Did you mean 'events'?" in message
    assert "empty, events, latest events" in message


def test_empty_table(database: Path) -> None:
    assert "has no rows" in refusal(f"sqlite:///{database}?table=empty")


def test_a_query_with_a_column_twice(database: Path) -> None:
    assert "more than one column named 'item_id'" in refusal(f"sqlite:///{database}?query=select item_id, item_id from events")


def test_broken_query(database: Path) -> None:
    assert "no such column: colour" in refusal(f"sqlite:///{database}?query=select colour from events")


def test_missing_sqlite_file_is_not_made(tmp_path: Path) -> None:
    assert "does not exist" in refusal(f"sqlite:///{tmp_path}/none.db?table=events")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "e.db").write_text("user_id,item_id\n" * 100)
    assert "file is not a database" in refusal(f"sqlite:///{tmp_path}/e.db?table=events")


@pytest.mark.parametrize("parameters", ["", "?table=a&query=select 1"])
def test_either_table_or_query(database: Path, parameters: str) -> None:
    assert "either table= or query=" in refusal(f"sqlite:///{database}{parameters}")


@pytest.mark.parametrize("address", ["nosuch://u:s3cret@h/db?table=t", "postgresql://u:s3cret@h:port/db?table=t", "s3://bucket/file.csv"])
def test_addresses_that_are_not_understood(address: str) -> None:
    assert "postgresql://user@host/db?table=NAME" in refusal(address)


@needs_psycopg2
def test_an_unreachable_server_names_host_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal("postgresql://reader:s3cret@127.0.0.1:1/shop?table=events")
    assert "reader:***@127.0.0.1:1/shop" in message
    assert "cannot be reached" in message
    assert "Connection refused" in message
    monkeypatch.setenv(PASSWORD, "s3cret")
    assert "cannot be reached" in refusal("postgresql://reader@127.0.0.1:1/shop?table=events")
