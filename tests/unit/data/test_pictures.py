"""Pictures of items, from the source to the prepared catalogue: by what they show, wherever they lie."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.config import RunConfig, config_from_dict
from nightloom.data.collect import collect
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.features import infer
from nightloom.data.tables.pictures import MOST_BYTES, PICTURES, STORE, UNREADABLE, content, places, take_in
from nightloom.data.tables.snapshot import Snapshot, read_snapshot
from tests.pictures import paint, picture
from tests.sections import of_collect, of_prepare


def key(data: bytes) -> str:
    return sha256(data).hexdigest()


def config(folder: Path, items: str = "items.csv", **data: object) -> RunConfig:
    tables = {"events": str(folder / "events.csv"), "items": str(folder / items)}
    return config_from_dict({"name": "shop", "data": tables | {"features": {"photo": "image"}} | data})


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Five items: two pictures, one of them twice, one that is not there, and an item without."""
    folder = tmp_path / "shop"
    paint(folder / "photos" / "a.png", "red")
    paint(folder / "b.jpg", "blue", 1)
    photos = ["photos/a.png", str(folder / "b.jpg"), None, "photos/gone.png", "photos/a.png"]
    pd.DataFrame({"item_id": list("abcde"), "title": "thing", "photo": photos}).to_csv(folder / "items.csv", index=False)
    random = np.random.default_rng(0)
    rows = [(f"u{user}", "abcde"[item], 1_600_000_000 + 1000 * at) for at, (user, item) in enumerate(random.integers(0, 5, (60, 2)))]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(folder / "events.csv", index=False)
    return folder


def photos(snapshot: Snapshot) -> list[str | None]:
    tables = read_snapshot(snapshot.path)
    assert tables.items is not None
    assert tables.features["photo"] == "image"
    return [None if pd.isna(cell) else cell for cell in tables.items["photo"]]


def test_a_path_becomes_the_digest_of_what_it_shows(shop: Path, tmp_path: Path) -> None:
    said: list[str] = []
    snapshot = collect(*of_collect(config(shop)), tmp_path / "mlruns", said.append)
    red, blue = ((shop / name).read_bytes() for name in ("photos/a.png", "b.jpg"))
    assert photos(snapshot) == [key(red), key(blue), None, UNREADABLE + "photos/gone.png", key(red)]
    found = places(snapshot.path / PICTURES)
    assert [content(found[key(one)]) for one in (red, blue)] == [(red, None), (blue, None)]
    assert content(found[UNREADABLE + "photos/gone.png"]) == (b"", "no such file")
    assert said[-1] == "read 2 pictures; 1 more can not be read"


def test_a_changed_picture_is_changed_data_and_a_moved_one_is_not(shop: Path, tmp_path: Path) -> None:
    first = collect(*of_collect(config(shop)), tmp_path / "mlruns")
    assert collect(*of_collect(config(shop)), tmp_path / "mlruns").hash == first.hash
    other = shop.rename(tmp_path / "elsewhere")
    items = pd.read_csv(other / "items.csv")
    items["photo"] = items["photo"].replace(str(shop / "b.jpg"), "b.jpg")
    items.to_csv(other / "items.csv", index=False)
    moved = collect(*of_collect(config(other)), tmp_path / "mlruns")
    assert moved.hash == first.hash
    lost = {key: reason for key, one in places(moved.path / PICTURES).items() if (reason := content(one)[1])}
    assert lost == {UNREADABLE + "photos/gone.png": "no such file"}  # the others are found where they are now
    paint(other / "photos" / "a.png", "green")
    changed = collect(*of_collect(config(other)), tmp_path / "mlruns")
    assert changed.hash != first.hash
    paint(other / "photos" / "gone.png", "green", 5)  # one that was missing is there
    assert len({first.hash, changed.hash, collect(*of_collect(config(other)), tmp_path / "mlruns").hash}) == 3


def test_a_picture_that_changes_while_the_night_runs_is_not_taken_for_the_old_one(shop: Path, tmp_path: Path) -> None:
    found = places(collect(*of_collect(config(shop)), tmp_path / "mlruns").path / PICTURES)
    before = key((shop / "b.jpg").read_bytes())
    paint(shop / "b.jpg", "green")
    assert content(found[before]) == (b"", "changed while the night ran")


@pytest.mark.parametrize("form", ["bytes", "of the hub"])
def test_bytes_get_to_the_prepared_catalogue(shop: Path, tmp_path: Path, form: str) -> None:
    red, blue = picture("red"), picture("blue")
    cells = [red, blue, None, b"", red]
    if form == "of the hub":
        cells = [{"bytes": red, "path": "a.png"}, {"bytes": None, "path": str(paint(shop / "b.png", "blue"))}, None, None, {"bytes": red}]
        blue = (shop / "b.png").read_bytes()
    pd.DataFrame({"item_id": list("abcde"), "title": "thing", "photo": cells}).to_parquet(shop / "items.parquet")
    run = config(shop, "items.parquet")
    snapshot = collect(run.name, run.data, tmp_path / "mlruns")
    assert photos(snapshot) == [key(red), key(blue), None, None, key(red)]
    shutil.rmtree(shop)
    (folder := tmp_path / "prepared").mkdir()
    prepare(read_snapshot(snapshot.path), folder, **of_prepare(run))
    cells = pd.read_parquet(folder / "items.parquet")["photo"]
    assert cells.tolist()[:2] == [key(red), key(blue)]
    found = places(folder / PICTURES)
    assert content(found[key(red)]) == (red, None)
    assert [path.name for path in (tmp_path / "mlruns/snapshots/shop/pictures").glob("*/*")].count(key(red)) == 1  # each once
    if form == "bytes":
        assert content(found[key(blue)]) == (blue, None)


def test_pictures_in_a_database_are_read(shop: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("create table items (item_id text primary key, photo blob)")
        database.executemany("insert into items values (?, ?)", [("a", None), ("b", picture("red")), ("c", None), ("d", None), ("e", None)])
    run = config(shop).model_copy(
        update={"data": config(shop).data.model_copy(update={"items": f"sqlite:///{tmp_path}/shop.db?table=items"})}
    )
    assert photos(collect(run.name, run.data, tmp_path / "mlruns")) == [None, key(picture("red")), None, None, None]


def test_what_is_no_picture_is_told_apart_from_nothing(tmp_path: Path, shop: Path) -> None:
    (shop / "empty.png").touch()
    items = pd.read_csv(shop / "items.csv").assign(photo=["https://shop/a.png", "photos", " ", "empty.png", 17])
    items.astype({"photo": "str"}).to_csv(shop / "items.csv", index=False)
    found = places(collect(*of_collect(config(shop)), tmp_path / "mlruns").path / PICTURES)
    reasons = {one.path: one.reason for one in found.values()}
    assert reasons["empty.png"] == "an empty file"
    assert reasons["17"] == "no such file"
    assert "an address" in (reasons["https://shop/a.png"] or "")
    assert "irectory" in (reasons["photos"] or "")
    assert len(reasons) == 4  # the blank cell names none


def test_a_row_that_names_a_device_or_a_huge_file_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "waits")  # reading it would not end, nor would /dev/zero
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(MOST_BYTES + 1)
    named = pd.DataFrame({"photo": ["/dev/zero", "waits", "huge"]})
    reasons = {row.path: row.reason for row in take_in(named, ["photo"], tmp_path, tmp_path / STORE)[1].itertuples()}
    assert {reasons["/dev/zero"], reasons["waits"]} == {"neither a file nor a folder, but a device or the like"}
    assert "more than a picture has" in reasons["huge"]


def test_numbers_are_neither_paths_nor_bytes(tmp_path: Path, shop: Path) -> None:
    pd.DataFrame({"item_id": list("abcde"), "photo": [1, 2, 3, 4, 5]}).to_parquet(shop / "items.parquet")
    found = places(collect(*of_collect(config(shop, "items.parquet")), tmp_path / "mlruns").path / PICTURES)
    assert {one.reason for one in found.values()} == {"neither a path nor bytes, but int"}


def test_bytes_that_nobody_calls_images_are_left_out(tmp_path: Path, shop: Path) -> None:
    assert infer(pd.Series([np.nan, picture("red"), None], dtype=object)) == "ignore"
    assert infer(pd.Series([np.array(["a", "b"]), np.array(["b"])] * 20, dtype=object)) == "tags"  # lists are no pictures
    pd.DataFrame({"item_id": list("abcde"), "title": "thing", "photo": [picture("red")] * 5}).to_parquet(shop / "items.parquet")
    tables = read_snapshot(collect(*of_collect(config(shop, "items.parquet", features={})), tmp_path / "mlruns").path)
    assert tables.items is not None
    assert set(tables.items) == {"item_id", "title"}
    assert tables.pictures is None


def test_two_nights_that_keep_the_same_picture_do_not_write_the_same_file(tmp_path: Path) -> None:
    red = picture("red")
    place = tmp_path / STORE / key(red)[:2] / key(red)
    theirs = place.with_suffix(".partial")  # another night has begun to write it, by the name that all nights used to give
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(red[:9])
    take_in(pd.DataFrame({"photo": pd.Series([red], dtype=object)}), ["photo"], None, tmp_path / STORE)
    assert {path: path.read_bytes() for path in place.parent.iterdir()} == {place: red, theirs: red[:9]}


def test_a_kept_picture_that_was_damaged_is_written_again(tmp_path: Path) -> None:
    red = picture("red")
    items = pd.DataFrame({"photo": pd.Series([red], dtype=object)})
    for damage in (red[:9], b"", red[:-1] + bytes([red[-1] ^ 1])):
        _, found = take_in(items, ["photo"], None, tmp_path)
        Path(found["path"][0]).write_bytes(damage)
    _, found = take_in(items, ["photo"], None, tmp_path)
    assert Path(found["path"][0]).read_bytes() == red
