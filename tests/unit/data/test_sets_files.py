"""Named sets that are files in a local folder: where they are looked for, how they are checked, what is said where they are not."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from nightloom.config import NamedSet, RunConfig, load_preset, presets
from nightloom.core.errors import InputError
from nightloom.data.collect import collect
from nightloom.data.sources import named
from nightloom.data.sources.sets.files import Content, FileSet
from nightloom.data.tables.snapshot import read_snapshot
from tests.sections import of_collect


def read(events: Path, items: Path) -> Content:
    rows = pd.read_csv(events, dtype={"code": "category"})
    return Content({"events": rows.iloc[:2], "items": pd.read_csv(items)}, {"too late": len(rows) - 2})


EVENTS = b"user_id,item_id,timestamp,price,code\na,1,2024-01-01,2.5,17\nb,2,2024-01-02,3,18\nb,1,2024-01-03,3,17\n"
ITEMS = b"item_id,title\n1,A ball\n2,A doll\n"
TOYS = FileSet(
    "The toys",
    "toys",
    {"e.csv": sha256(EVENTS).hexdigest(), "i.csv": sha256(ITEMS).hexdigest()},
    "toys.example",
    "Toys may be used by all.",
    read,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    monkeypatch.setenv(named.FOLDER, str(place))
    monkeypatch.setattr(named, "FILE_SETS", {"office": TOYS})
    return place


def put(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "e.csv").write_bytes(EVENTS)
    (folder / "i.csv").write_bytes(ITEMS)


@pytest.mark.parametrize("own_folder", [True, False])
def test_a_set_is_found_in_its_own_folder_or_directly(folder: Path, tmp_path: Path, own_folder: bool) -> None:
    put(folder / "toys" if own_folder else folder)
    said: list[str] = []
    fetched = named.fetch("office", tmp_path / "downloads", said.append)
    assert said == ["Toys may be used by all.", "The toys: 1 rows left out: too late"]
    assert fetched.left_out == {"too late": 1}
    assert fetched.tables["items"].frame["title"].tolist() == ["A ball", "A doll"]


def test_a_set_is_found_among_the_downloads(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "downloads")
    assert named.fetch("office", tmp_path / "downloads").origin == "downloads"


def test_a_changed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    put(folder)
    (folder / "i.csv").write_bytes(ITEMS + b"3,A kite\n")
    with pytest.raises(InputError, match=r"The toys: i.csv of .* has SHA-256 .*, expected .*get it again from toys.example"):
        named.fetch("office", tmp_path)


def test_where_the_set_is_not_the_message_says_how_to_have_it(folder: Path, tmp_path: Path) -> None:
    remedy = r"get e.csv, i.csv from toys.example, put them into a folder named toys, and set NIGHTLOOM_DATA"
    with pytest.raises(InputError, match=r"The toys is not here\. It is not downloaded by itself: " + remedy):
        named.fetch("office", tmp_path)
    put(folder / "toys")
    (folder / "toys" / "e.csv").unlink()
    with pytest.raises(InputError, match=r"The toys is not here: .*toys lacks e\.csv\. .*" + remedy):
        named.fetch("office", tmp_path)


def test_the_snapshot_keeps_context_licence_and_what_was_left_out(folder: Path, tmp_path: Path) -> None:
    put(folder)
    snapshot = collect(*of_collect(RunConfig.model_validate({"name": "toys", "data": {"set": "office"}})), tmp_path)
    assert snapshot.source == {"set": "office", "from": "data", "left_out": {"too late": 1}}
    assert snapshot.licence == "Toys may be used by all."
    events = read_snapshot(snapshot.path).events
    assert events["price"].tolist() == [2.5, 3.0]
    assert events["code"].tolist() == ["17", "18"]


def test_every_name_of_the_config_is_a_set_and_every_set_has_its_preset() -> None:
    assert set(get_args(NamedSet)) == {*named.SETS, *named.FILE_SETS}
    assert {load_preset(preset).data.set for preset in presets()} == set(get_args(NamedSet))
