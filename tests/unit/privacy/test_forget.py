"""Forgetting a person in the folders of a recommender, without a registry: what is left holds nothing, whenever it was cut off."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from nightloom.config import config_from_dict
from nightloom.core.digests import write_sealed
from nightloom.core.errors import InputError
from nightloom.data.collect import collect
from nightloom.data.tables.snapshot import Snapshot, read_snapshot
from nightloom.privacy import forget as module
from nightloom.privacy.forget import forget
from nightloom.promotion.registry import Registry
from nightloom.runs.forgotten import Forgotten
from nightloom.runs.service_store import store_file
from nightloom.runs.storage import INDEX, STORE, Storage
from nightloom.serving.run import Place, serve
from nightloom.serving.settings import rebuilt_file
from nightloom.serving.store import Event, Feedback, Store
from nightloom.serving.store.base import Base
from nightloom.serving.store.erase import wishes

NAME, CANARY = "shop", "canary-zeta-77"


def decoded(path: Path) -> Iterator[str]:
    """What a table or a database holds, as text."""
    if path.suffix == ".parquet":
        yield pq.read_table(path).to_pandas().to_csv()
    elif path.suffix == ".db":
        with closing(sqlite3.connect(path)) as connection:
            yield from connection.iterdump()


def holders(root: Path, user: str = CANARY) -> list[str]:
    """Files that hold an id, in their bytes or in what they decode to."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    found = {path for path in files if user.encode() in path.read_bytes()}  # before a database is opened, which may take its log in
    found |= {path for path in files if any(user in text for text in decoded(path))}
    return sorted(str(path.relative_to(root)) for path in found)


def tree(root: Path) -> dict[str, str]:
    """What the files say, but for the store's random numbers and the times."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        if path.suffix in (".parquet", ".html") or path.name in ("report.json", "shop.json"):
            found[str(path.relative_to(root))] = "".join(decoded(path) if path.suffix == ".parquet" else [path.read_text()])
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a source, a snapshot, a store, and what a night leaves."""
    rows = [(user, f"i{item}", 1_600_000_000 + 1000 * item, 5) for user in ("ann", "bob", CANARY) for item in range(4)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "value"]).astype({"timestamp": object})
    table.loc[len(table)] = [CANARY, "i1", "no time", 3]
    table.loc[len(table)] = ["bob", "i1", "never", 3]
    table.to_csv(tmp_path / "events.csv", index=False)
    pd.DataFrame({"user_id": ["ann", "bob", CANARY], "sex": ["F", "M", "F"]}).to_csv(tmp_path / "users.csv", index=False)
    root = tmp_path / "mlruns"
    snapshot = taken(tmp_path)
    store = Store.open(store_file(root, NAME))
    store.add_events(
        [Event("e1", CANARY, "i1", "rating", 1_700_000_000_000, 4.0), Event("e2", "ann", "i2", "rating", 1_700_000_000_000, 4.0)]
    )
    store.add_feedback([Feedback("f1", "click", "token", 1_700_000_000_000, CANARY, "i1", 1, 10, None, None)])
    store.close()
    base = Base(snapshot.path, store_file(root, NAME))
    assert base.events(CANARY)
    base.close()
    night = root / "nights" / NAME / "20260101-020000"
    (night / "manifests").mkdir(parents=True)
    (night / "report.json").write_text(json.dumps({"sample_lists": {"users": [{"user_id": CANARY}, {"user_id": "ann"}]}}))
    (night / "report.html").write_text(f"<summary>User {CANARY}</summary><summary>User ann</summary>")
    pd.DataFrame({"user_id": [CANARY, "ann"], "rank": [1, 2]}).to_parquet(night / "per_user.parquet", index=False)
    write_sealed(night / "manifests" / "explain.json", {"figures": {"users": [CANARY, "ann"]}})
    stage = root / "stages" / NAME / "prepare" / "0123456789abcdef"
    stage.mkdir(parents=True)
    pd.DataFrame({"user_id": [CANARY, "ann"]}).to_parquet(stage / "users.parquet", index=False)
    rebuilt_file(root / "serving" / NAME, "1").parent.mkdir(parents=True)
    rebuilt_file(root / "serving" / NAME, "1").write_bytes(b"edges of everybody's events")
    texts = root / "stages" / NAME / "load_pretrained" / "0123456789abcdef"
    texts.mkdir(parents=True)
    (texts / "texts.json").write_text("[]")
    return tmp_path


def taken(home: Path) -> Snapshot:
    """A collect of the same CSV files."""
    data = {"events": str(home / "events.csv"), "users": str(home / "users.csv")}
    return collect(NAME, config_from_dict({"name": NAME, "data": data}).data, home / "mlruns")


def test_nothing_is_left_and_the_same_source_brings_nothing_back(home: Path) -> None:
    root = home / "mlruns"
    assert len(holders(root)) >= 8
    done = forget(NAME, CANARY, root)
    assert done.rows == 2
    assert holders(root) == []
    assert not rebuilt_file(root / "serving" / NAME, "1").exists()
    assert (root / "stages" / NAME / "load_pretrained" / "0123456789abcdef" / "texts.json").exists()
    (snapshot,) = (root / "snapshots" / NAME).glob("*/snapshot.json")
    left = read_snapshot(snapshot.parent)  # sealed anew, and of the others nothing is gone
    assert sorted(left.events["user_id"].unique()) == ["ann", "bob"]
    assert len(left.events) == 8
    assert left.rejected["events"]["row"].tolist() == [14]
    assert pd.read_parquet(root / "nights" / NAME / "20260101-020000" / "per_user.parquet")["user_id"].tolist() == ["ann"]
    again = taken(home)
    assert set(read_snapshot(again.path).events["user_id"]) == {"ann", "bob"}
    assert again.source["left_out"] == {"users who asked to be forgotten": 4}
    assert holders(root) == []


def test_nothing_is_left_in_the_store_whatever_a_kill_left_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, store = home / "mlruns", home / "store"
    monkeypatch.setenv(STORE, f"file://{store}")
    storage = Storage.of(root)
    (snapshot,) = (root / "snapshots" / NAME).glob("*/snapshot.json")
    night = f"nights/{NAME}/20260101-020000"
    for place in (f"snapshots/{NAME}/{snapshot.parent.name}", night, f"stages/{NAME}/prepare/0123456789abcdef"):
        storage.publish(place)
    storage.write_json(f"nights/{NAME}/latest.json", {"night": "20260101-020000"})
    elsewhere = store / "snapshots" / NAME / "0123456789abcdef"  # of another machine, whose publish was killed before its index
    shutil.copytree(snapshot.parent, elsewhere)
    (store / night / INDEX).unlink()
    assert len(holders(store)) >= 8
    done = forget(NAME, CANARY, root)
    assert holders(store) == []
    assert done.left == ("Other machines that share the store have files and a list of their own: forget the person there, too.",)
    assert storage.index(night)
    assert not elsewhere.exists()
    assert storage.read_json(f"nights/{NAME}/latest.json") == {"night": "20260101-020000"}


def test_the_act_is_recorded_without_the_id_and_only_its_key_finds_the_person(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = home / "mlruns"
    forget(NAME, CANARY, root)
    listed = Forgotten.load(root, NAME)
    act = listed.act(CANARY)
    assert act is not None
    assert act.done
    assert CANARY not in (root / "forgotten" / f"{NAME}.json").read_text()
    assert listed.of({"ann", CANARY}) == {CANARY}
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", "another key, of some length")
    with pytest.raises(InputError, match=r"made by the key [0-9a-f]{16}.*NIGHTLOOM_PRIVACY_KEY"):
        taken(home)


@pytest.mark.parametrize("step", range(8))
def test_killed_at_any_step_and_started_again_it_ends_the_same(home: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", "a key of enough letters")
    root, whole = home / "mlruns", home / "whole"
    shutil.copytree(root, whole / "mlruns")
    forget(NAME, CANARY, whole / "mlruns")
    names = ("erase_from_store", "_redact_snapshot", "erase_from_base", "_delete_stages", "redact", "redact", "redact", "_publish")
    name, calls = names[step], iter(range(100))
    after = step - 4 if name == "redact" else 0
    really = getattr(module, name)

    def killed(*arguments: object) -> object:
        if next(calls) == after:
            raise KeyboardInterrupt
        return really(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(KeyboardInterrupt):
            forget(NAME, CANARY, root)
    assert not Forgotten.load(root, NAME).act(CANARY).done  # type: ignore[union-attr]
    assert set(read_snapshot(taken(home).path).events["user_id"]) == {"ann", "bob"}  # from the first step on
    for folder in (root / "snapshots" / NAME).glob("*"):
        if folder.name not in {path.name for path in (whole / "mlruns" / "snapshots" / NAME).glob("*")}:
            shutil.rmtree(folder)  # of the collect just now
    forget(NAME, CANARY, root)
    assert holders(root) == []
    assert tree(root) == tree(whole / "mlruns")


def test_a_snapshot_that_was_cut_off_between_its_files_is_whole_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = home / "mlruns"
    moves, really = iter(range(100)), Path.replace

    def cut(path: Path, target: Path) -> Path:
        if path.parent.name == module.SCRATCH and next(moves) == 1:
            raise KeyboardInterrupt
        return really(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            forget(NAME, CANARY, root)
    forget(NAME, CANARY, root)
    assert holders(root) == []
    (snapshot,) = (root / "snapshots" / NAME).glob("*/snapshot.json")
    assert set(read_snapshot(snapshot.parent).events["user_id"]) == {"ann", "bob"}


def test_who_asked_the_service_waits_for_the_night_and_may_come_back(home: Path) -> None:
    root = home / "mlruns"
    store = Store.open(store_file(root, NAME))
    assert store.forget(CANARY) == 2
    assert wishes(store_file(root, NAME)) == [(CANARY, datetime.now(UTC).strftime("%Y-%m-%d"))]
    forget(NAME, CANARY, root)
    assert wishes(store_file(root, NAME)) == []
    store.add_events([Event("e9", CANARY, "i3", "rating", 1_800_000_000_000, 5.0)])
    store.close()
    events = read_snapshot(taken(home).path).events
    assert events[events["user_id"] == CANARY]["item_id"].tolist() == ["i3"]  # what came afterwards, and nothing of before


def test_others_of_another_recommender_are_left_alone(home: Path) -> None:
    root = home / "mlruns"
    other = root / "nights" / "shop-2" / "20260101-020000"
    other.mkdir(parents=True)
    (other / "report.html").write_text(f"<summary>User {CANARY}</summary>")
    forget(NAME, CANARY, root)
    assert holders(root) == ["nights/shop-2/20260101-020000/report.html"]


@pytest.mark.parametrize("name", ["../outside", "", "a/b", "Shop", "shop\n", "..", "\0"])
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    root = tmp_path / "mlruns"
    root.mkdir()
    with pytest.raises(InputError, match="is no name"):
        forget(name, "u1", root)
    with pytest.raises(InputError, match="is no name"):
        serve(name, root, lambda: Registry(root), Place())
    assert [*tmp_path.rglob("*")] == [root]


def test_while_a_run_is_at_work_it_is_refused(home: Path) -> None:
    import subprocess
    import sys

    root = home / "mlruns"
    code = (
        "import sys; from pathlib import Path; from nightloom.runs.locks import in_use; "
        "in_use(Path(sys.argv[1])); print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root.resolve())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        with pytest.raises(InputError, match="is at work under"):
            forget(NAME, CANARY, root)
        worker.terminate()
    assert holders(root)
