"""What people did by day is in the next night's snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from nightloom.config import RunConfig, load_config
from nightloom.core.errors import InputError
from nightloom.data.collect import collect
from nightloom.data.tables.schema import Tables
from nightloom.data.tables.snapshot import Snapshot, read_snapshot
from nightloom.runs.service_store import EVENTS_URL, store_file
from nightloom.serving.store import Event, Feedback, Store
from tests.postgres_server import postgres_server

YAML = """
name: mine
data:
  events: ratings.csv
  items: movies.csv
  columns:
    events: {user_id: userId, item_id: movieId, timestamp: timestamp, value: rating, event: kind, page: page}
    items: {item_id: movieId, title: title, genres: genres, price: price}
  features: {title: text, genres: tags, price: number}
"""
DAY = 1_700_000_000_000


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.delenv(EVENTS_URL, raising=False)
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp,kind,page\n1,01,4.0,964982703,rating,home\n2,02,3.0,964981247,rating,\n2,01,3.5,964982224,rating,x\n"
    )
    (tmp_path / "movies.csv").write_text('movieId,title,genres,price\n01,"Heat, the film",Crime|War,3\n02,Alien,Horror,\n')
    (tmp_path / "mine.yaml").write_text(YAML)
    return load_config(tmp_path / "mine.yaml")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(store_file(tmp_path / "mlruns", "mine"))
    yield opened
    opened.close()


def night(config: RunConfig, root: Path, said: list[str] | None = None) -> tuple[Snapshot, Tables]:
    snapshot = collect(config.name, config.data, root / "mlruns", (said if said is not None else []).append)
    return snapshot, read_snapshot(snapshot.path)


def test_the_day_is_in_the_next_nights_snapshot(config: RunConfig, store: Store, tmp_path: Path) -> None:
    store.add_events([Event("e1", "9", "03", "rating", DAY, 5.0, {"page": "home", "odd": 1}), Event("gone", "9", "01", "rating", DAY)])
    store.delete_event("gone")
    store.add_feedback(
        [Feedback("f1", "click", "token", DAY + 1, "9", "01", event="click"), Feedback("f2", "impression", "token", DAY + 1, "9", "02")]
    )
    store.put_item("03", {"title": "New", "genres": ["Drama", "War"], "price": 7, "shelf": "A"})
    store.patch_item("02", {"price": "2.5"})
    said: list[str] = []
    snapshot, tables = night(config, tmp_path, said)
    added = tables.events.iloc[3:]
    assert added[["user_id", "item_id", "event"]].values.tolist() == [["9", "03", "rating"], ["9", "01", "click"]]
    assert added["timestamp"].astype("int64").tolist() == [DAY, DAY + 1]
    assert added["value"].tolist()[0] == 5.0
    assert added["page"].tolist()[0] == "home"
    assert tables.events["timestamp"].dtype == "datetime64[ms, UTC]"
    assert tables.items is not None
    assert tables.items.fillna("-").values.tolist() == [
        ["01", "Heat, the film", "Crime|War", 3.0],
        ["02", "Alien", "Horror", 2.5],
        ["03", "New", "Drama|War", 7.0],
    ]
    assert snapshot.features == {"title": "text", "genres": "tags", "price": "number"}
    assert any(line.startswith("read 2 events and 2 items of the service's store") for line in said)
    assert any("shelf" in note for note in snapshot.source["notes"])
    (number,) = snapshot.source["store_rows"].values()
    assert list(store.view(snapshot.path).changes()) == [], "the service begins where the snapshot ends"
    store.add_events([Event("e2", "9", "01", "rating", DAY + 2)])
    view = store.view(snapshot.path)
    assert [change.event_id for change in view.changes() if isinstance(change, Event)] == ["e2"]
    assert [one.item_id for one in view.history("9", 10)] == ["03", "01", "01"]
    assert number > 0


def test_nights_that_nothing_came_between_are_the_same_snapshot(config: RunConfig, store: Store, tmp_path: Path) -> None:
    bare, _ = night(config.model_copy(update={"data": config.data.model_copy(update={"store": "none"})}), tmp_path)
    assert night(config, tmp_path)[0].hash == bare.hash, "an empty store changes nothing"
    store.add_events([Event(f"e{number}", "9", "01", "rating", DAY, 4.0) for number in range(3)])
    first, _ = night(config, tmp_path)
    assert first.hash != bare.hash
    store.add_events([Event("e1", "9", "01", "rating", DAY, 4.0)])
    assert night(config, tmp_path)[0].hash == first.hash


def test_the_store_has_no_part_in_the_configs_digest(config: RunConfig) -> None:
    other = config.model_copy(update={"data": config.data.model_copy(update={"store": "none"})})
    assert other.digest() == config.digest()


def test_who_asked_to_go_is_out_of_every_table_and_counts_again_afterwards(config: RunConfig, store: Store, tmp_path: Path) -> None:
    store.add_events([Event("e1", "2", "01", "rating", DAY)])
    store.forget("2")
    snapshot, tables = night(config, tmp_path)
    assert tables.events["user_id"].tolist() == ["1"]
    assert snapshot.source["left_out"] == {"users who asked to be forgotten": 2}
    store.add_events([Event("e2", "2", "02", "rating", DAY + 1)])
    _, tables = night(config, tmp_path)
    assert tables.events[["user_id", "item_id"]].values.tolist() == [["1", "01"], ["2", "02"]]


def test_a_deleted_item_leaves_with_its_events(config: RunConfig, store: Store, tmp_path: Path) -> None:
    store.delete_item("01")
    snapshot, tables = night(config, tmp_path)
    assert tables.items is not None
    assert tables.items["item_id"].tolist() == ["02"]
    assert tables.events["item_id"].tolist() == ["02"]
    assert snapshot.source["left_out"] == {"items that were deleted at the service": 2}


def test_what_can_not_be_a_number_is_set_aside_with_its_reason(config: RunConfig, store: Store, tmp_path: Path) -> None:
    store.patch_item("02", {"price": "cheap"})
    store.put_item("03", {"title": "fine"})
    snapshot, tables = night(config, tmp_path)
    assert snapshot.rejected == {"items": 1}
    assert tables.rejected["items"]["reason"].tolist() == ["price is not a number"]
    assert json.loads(tables.rejected["items"]["raw"].iloc[0]) == {"item_id": "02", "price": "cheap"}
    assert tables.items is not None
    assert tables.items["item_id"].tolist() == ["01", "02", "03"], "the catalogue's row stays as it was"
    assert pd.isna(tables.items["price"].iloc[1])


def test_without_an_items_table_the_items_of_the_day_describe_themselves(config: RunConfig, store: Store, tmp_path: Path) -> None:
    data = config.data.model_copy(update={"items": None, "features": {}, "columns": {"events": dict(config.data.columns["events"])}})
    store.put_item("03", {"title": "A whole new film", "price": 3})
    snapshot, tables = night(config.model_copy(update={"data": data}), tmp_path)
    assert tables.items is not None
    assert sorted(tables.items["item_id"]) == ["01", "02", "03"]
    row = tables.items.set_index("item_id").loc["03"]
    assert (row["title"], row["price"]) == ("A whole new film", 3.0)
    assert snapshot.features == {"title": "text", "price": "number"}


@pytest.mark.parametrize("order", ["position", "random"])
def test_events_without_times(config: RunConfig, store: Store, tmp_path: Path, order: str) -> None:
    (tmp_path / "ratings.csv").write_text("u,i,position\n1,01,5\n1,02,6\n")
    columns = {"events": {"user_id": "u", "item_id": "i", "order": order}, "items": dict(config.data.columns["items"])}
    data = config.data.model_copy(update={"columns": columns})
    store.add_events([Event("e2", "1", "02", "x", DAY + 5), Event("e1", "1", "01", "x", DAY)])
    _, tables = night(config.model_copy(update={"data": data}), tmp_path)
    assert "timestamp" not in tables.events
    if order == "position":
        assert tables.events[["item_id", "order"]].values.tolist() == [["01", 5], ["02", 6], ["01", 7], ["02", 8]]
    assert len(set(tables.events["order"])) == 4


def test_another_store_is_named_by_recommender_or_file_and_must_be_there(
    store: Store, tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_events([Event("e1", "9", "01", "rating", DAY)])
    yaml = tmp_path / "other.yaml"
    yaml.write_text(YAML.replace("name: mine\n", "name: other\n"))
    assert night(load_config(yaml), tmp_path)[0].counts["events"] == 3
    for named in ("mine", "mlruns/store/mine.db"):
        yaml.write_text(YAML.replace("name: mine\ndata:", f"name: other\ndata:\n  store: {named}"))
        monkeypatch.chdir(tmp_path.parent)  # a file is relative to the YAML
        assert night(load_config(yaml), tmp_path)[0].counts["events"] == 4
    for named in ("nobody", "none.db"):
        yaml.write_text(YAML.replace("name: mine\ndata:", f"name: other\ndata:\n  store: {named}"))
        with pytest.raises(InputError, match=r"data\.store"):
            night(load_config(yaml), tmp_path)
    (tmp_path / "broken.db").write_text("no database" * 100)
    yaml.write_text(YAML.replace("name: mine\ndata:", "name: other\ndata:\n  store: broken.db"))
    with pytest.raises(InputError, match="can not be read"):
        night(load_config(yaml), tmp_path)


def test_out_of_postgresql_come_the_rows_of_all_machines(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server() as server:
        monkeypatch.setenv(EVENTS_URL, server.url)
        assert night(config, tmp_path)[0].counts["events"] == 3, "no service has run yet"
        machines = [Store.open(tmp_path / machine / "mine.db", server.url, ack="central") for machine in ("a", "b")]
        for number, machine in enumerate(machines):
            machine.add_events([Event(f"e{number}", "9", "01", "rating", DAY + number)])
        machines[0].put_item("03", {"title": "New"})
        snapshot, tables = night(config, tmp_path)
        assert tables.events["timestamp"].astype("int64").tolist()[3:] == [DAY, DAY + 1]
        assert tables.items is not None
        assert tables.items["item_id"].tolist() == ["01", "02", "03"]
        assert len(snapshot.source["store_rows"]) == 2
        assert "postgres@" not in json.dumps(snapshot.source)
        for machine in machines:
            assert list(machine.view(snapshot.path).changes()) == []
            machine.close()
        server.stop()
        with pytest.raises(InputError, match=EVENTS_URL):
            night(config, tmp_path)
