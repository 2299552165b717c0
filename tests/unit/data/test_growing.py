"""A source that grows: the second night reads what is new alone, and gives what a night gives that reads everything."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightloom.config import DataConfig
from nightloom.core.files import PARTIAL
from nightloom.data.collect import collect
from nightloom.data.preparation.stored import look_up
from nightloom.data.sources import files
from nightloom.data.tables import coded, kept, streamed
from nightloom.data.tables.kept import SAID, kept_home
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.privacy.forget import forget, saw
from nightloom.runs import forgotten
from nightloom.runs.service_store import store_file
from nightloom.serving.store import Event, Store
from nightloom.serving.store.base import make

NAME = "shop"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of few rows, read a few at a time."""
    monkeypatch.setattr(coded, "ROW_GROUP", 50)
    monkeypatch.setattr(files, "PIECE", 40)
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", "a key of enough letters")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each piece that was made canonical."""
    found: list[int] = []
    really = streamed.convert_table

    def counted(table: files.RawTable, name: str, *given: object) -> object:
        if name == "events":
            found.append(len(table.frame))
        return really(table, name, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(streamed, "convert_table", counted)
    return found


def log(seed: int, rows: int) -> pd.DataFrame:
    """Events of a few users, of which some can not be read."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": np.where(random.random(rows) < 0.03, "", random.integers(0, 30, rows).astype(str)),
            "item_id": random.integers(0, 20, rows).astype(str),
            "timestamp": 1_700_000_000 + random.integers(0, 10**6, rows),
            "event": random.choice(["view", "buy"], rows),
            "value": random.integers(1, 6, rows),
        }
    )


def days(folder: Path, events: pd.DataFrame, ends: list[int], form: str) -> list[Path]:
    """Write events as files, one after the other."""
    folder.mkdir(exist_ok=True)
    places = [folder / f"{day:02}.{form}" for day in range(len(ends))]
    for place, first, last in zip(places, [0, *ends], ends, strict=False):
        some = events.iloc[first:last]
        if form == "parquet":
            some.to_parquet(place, index=False, row_group_size=30)
        else:
            some.to_csv(place, index=False)
    return places


def night(source: Path, root: Path) -> Path:
    """The snapshot of a night."""
    return collect(NAME, DataConfig(events=str(source), store="none"), root).path


def told(snapshot: Path) -> dict[str, bytes]:
    """All that a snapshot holds, less when and where it was made."""
    found = {path.relative_to(snapshot).as_posix(): path.read_bytes() for path in snapshot.rglob("*.parquet") if path.is_file()}
    tables = read_snapshot(snapshot)
    return found | {"name": snapshot.name.encode(), "rejected": tables.rejected["events"].to_json().encode()}


def same(source: Path, root: Path, tmp_path: Path) -> Path:
    """A night's snapshot, which is that of a night that reads everything."""
    found = night(source, root)
    shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
    if (root / "forgotten").is_dir():
        shutil.copytree(root / "forgotten", tmp_path / "scratch" / "forgotten")
    assert told(found) == told(night(source, tmp_path / "scratch"))
    assert not list(root.rglob(f"{PARTIAL}*"))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_second_night_reads_what_is_new_and_gives_what_the_first_would(seed: int, tmp_path: Path, read: list[int]) -> None:
    random = np.random.default_rng(seed)
    events = log(seed, 400)
    ends = [*sorted(random.choice(np.arange(1, 380), random.integers(3, 9), replace=False).tolist()), 380, 385, 400]
    form = ("csv", "parquet")[seed % 2]
    source = tmp_path / "source"
    later = days(source, events, ends, form)[-2:]
    for place in later:
        place.rename(tmp_path / place.name)
    night(source, tmp_path / "mlruns")
    assert sum(read) == 380
    for place, begins, rows in zip(later, ends[-4:], ends[-2:], strict=False):  # the file that was last night's last begins there
        (tmp_path / place.name).rename(place)
        read.clear()
        found = night(source, tmp_path / "mlruns")
        seen = sum(read)
        assert told(found) == told(night(source, tmp_path / place.stem))
        assert seen <= rows - begins + 40  # less than a piece before it
        assert len(list((found / "events.parquet").iterdir())) >= 7


def test_a_parquet_file_that_grew_at_its_end_is_read_from_there(tmp_path: Path, read: list[int]) -> None:
    events, place = log(1, 400), tmp_path / "events.parquet"
    table = pa.Table.from_pandas(events)
    for rows in (370, 400):
        pq.write_table(table.slice(0, rows), place, row_group_size=30)
        read.clear()
        found = night(place, tmp_path / "mlruns")
        seen = sum(read)
        assert told(found) == told(night(place, tmp_path / f"{rows}"))
    assert seen <= 80
    pq.write_table(pa.concat_tables([table.slice(1, 30), table.slice(0, 370)]), place, row_group_size=30)
    read.clear()
    same(place, tmp_path / "mlruns", tmp_path)
    assert sum(read) == 800


CHANGES: dict[str, Callable[[list[Path], Path], None]] = {
    "an old file is another": lambda places, _: places[1].write_text(places[1].read_text().replace("view", "buy", 1)),
    "an old file is gone": lambda places, _: places[1].unlink(),
    "the last file is gone": lambda places, _: places[-1].unlink(),
    "old files have other names": lambda places, _: places[0].rename(places[0].with_name("07.csv")),  # type: ignore[dict-item, return-value]
    "a kept part is damaged": lambda _, home: (home / "000001.parquet").write_bytes(b"PAR1 and no more"),
    "a kept part is gone": lambda _, home: (home / "000001.parquet").unlink(),
    "what was said is damaged": lambda _, home: (home / SAID).write_text((home / SAID).read_text().replace('"rows": 3', '"rows": 4', 1)),
    "nothing": lambda _, __: None,
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_whatever_changes_the_night_gives_what_one_gives_that_reads_everything(change: str, tmp_path: Path, read: list[int]) -> None:
    source, root = tmp_path / "source", tmp_path / "mlruns"
    places = days(source, log(3, 400), [60, 120, 180, 240, 300, 360, 400], "csv")
    first = night(source, root)
    home = kept_home(root, NAME) / "collect"
    assert sorted(path.name for path in home.glob("0*")) == [f"00000{part}.parquet" for part in range(6)]
    assert (home / "000000.parquet").samefile(first / "events.parquet" / "000000.parquet")
    (home / "000001.parquet").rename(tmp_path / "one")  # a file of its own, so that what is done to it is not done to the snapshot
    shutil.copyfile(tmp_path / "one", home / "000001.parquet")
    CHANGES[change](places, home)
    read.clear()
    second = night(source, root)
    assert sum(read) == {"nothing": 40, "the last file is gone": 0}.get(change, sum(len(pd.read_csv(one)) for one in source.iterdir()))
    same(source, root, tmp_path)
    if change == "nothing":
        assert second == first


def test_what_is_decided_by_all_rows_is_decided_anew(tmp_path: Path, read: list[int]) -> None:
    source, root, events = tmp_path / "source", tmp_path / "mlruns", log(4, 400)
    days(source, events.iloc[:360], [120, 240, 360], "csv")
    night(source, root)
    events.loc[360:, "timestamp"] *= 1000  # new rows in another unit: of all rows they are the few
    events.iloc[360:].to_csv(source / "09.csv", index=False)
    found = same(source, root, tmp_path)
    assert len(read_snapshot(found).rejected["events"]) > 40


def test_who_writes_a_source_while_it_is_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, root = tmp_path / "source", tmp_path / "mlruns"
    places = days(source, log(5, 300), [100, 200, 300], "csv")
    really = streamed.convert_table

    def writing(*given: object) -> object:
        places[0].write_text(places[0].read_text().replace("view", "look"))
        return really(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(streamed, "convert_table", writing)
        night(source, root)
    assert not (kept_home(root, NAME) / "collect").exists()
    same(source, root, tmp_path)


def test_a_file_that_goes_away_once_it_is_read_ends_no_night(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "mlruns"
    places = days(source, log(5, 300), [100, 200, 300], "csv")

    def rotate(line: str) -> None:
        if line.startswith("read 300 events"):
            places[0].unlink()

    found = collect(NAME, DataConfig(events=str(source), store="none"), root, rotate)
    assert found.counts["events"] + found.rejected["events"] == 300
    assert not (kept_home(root, NAME) / "collect").exists()
    same(source, root, tmp_path)


def test_two_nights_that_keep_at_one_moment_both_end_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, really = tmp_path / "parts" / "collect", kept.drop

    def keep(key: str) -> None:
        with kept.keeping(home, key, {}) as folder:
            (folder / "one").write_text(key)

    def between(place: Path) -> None:
        really(place)
        monkeypatch.setattr(kept, "drop", really)
        keep("the other's")

    monkeypatch.setattr(kept, "drop", between)
    keep("mine")
    (tmp_path / "into").mkdir()
    assert kept.take(home, "the other's", tmp_path / "into") is not None
    assert (tmp_path / "into" / "one").read_text() == "the other's"
    assert [path.name for path in home.parent.iterdir()] == ["collect"]


def test_a_kill_while_it_is_kept_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    places = days(source, log(6, 400), [100, 200, 300, 400], "csv")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("write_sealed", "drop"):
        root = tmp_path / step
        places[-1].rename(tmp_path / "last.csv")
        night(source, root)
        (tmp_path / "last.csv").rename(places[-1])
        with monkeypatch.context() as patch:
            patch.setattr(kept, step, killed)
            with pytest.raises(KeyboardInterrupt):
                night(source, root)
        same(source, root, tmp_path)


def test_an_id_that_comes_in_many_pieces_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, root, events = tmp_path / "source", tmp_path / "mlruns", log(9, 400)
    events.loc[events["user_id"] == "", "user_id"] = "1"
    days(source, events, [100, 200, 300, 400], "csv")
    root.mkdir()
    forget(NAME, "7", root)
    asked: list[str] = []
    really = forgotten.forgotten_hash
    monkeypatch.setattr(forgotten, "forgotten_hash", lambda key, user: (asked.append(user), really(key, user))[1])
    found = night(source, root)
    assert sorted(asked) == sorted(set(events["user_id"]))
    assert set(read_snapshot(found).events["user_id"]) == set(asked) - {"7"}


def holders(root: Path, user: str) -> Iterator[Path]:
    """Parquet files that hold an id."""
    for path in root.rglob("*.parquet"):
        if path.is_file() and user in pq.read_table(path).to_pandas().to_csv():
            yield path


def test_whoever_is_forgotten_is_in_no_part_and_in_nothing_that_is_kept(tmp_path: Path) -> None:
    source, root, canary = tmp_path / "source", tmp_path / "mlruns", "canary-zeta-77"
    events = log(7, 400)
    events.loc[::9, "user_id"] = canary
    events.loc[3, ["user_id", "timestamp"]] = [canary, 5]  # can not be read
    places = days(source, events, [100, 200, 300, 400], "csv")
    places[-1].rename(tmp_path / "last.csv")
    first = night(source, root)
    (tmp_path / "last.csv").rename(places[-1])
    second = night(source, root)
    for home in (kept_home(root, NAME), root / "snapshots" / NAME):
        (home / f"{PARTIAL}left").mkdir()  # by a kill
        shutil.copyfile(second / "events.parquet" / "000000.parquet", home / f"{PARTIAL}left" / "000000.parquet")
    assert {path.parts[len(root.parts)] for path in holders(root, canary)} == {"cache", "snapshots"}
    assert saw(first, canary)
    forget(NAME, canary, root)
    assert not list(holders(root, canary))
    assert not saw(first, canary)
    assert not list(kept_home(root, NAME).iterdir())
    others = (events["user_id"] != canary) & (events["user_id"] != "")
    assert len(read_snapshot(second).events) == others.sum()
    third = same(source, root, tmp_path)
    assert len(read_snapshot(third).events) == others.sum()
    (source / "09.csv").write_text("user_id,item_id,timestamp,event,value\n" + f"{canary},1,1700000000,view,1\n" * 60)
    same(source, root, tmp_path)
    assert not list(holders(root, canary))


def test_a_snapshot_of_parts_is_read_as_one_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    days(source, log(8, 400), [200, 400], "csv")
    parts = night(source, tmp_path / "parts")
    monkeypatch.setattr(coded, "ROW_GROUP", 1000)
    alone = night(source, tmp_path / "alone")
    assert (parts / "events.parquet").is_dir()
    assert (alone / "events.parquet").is_file()
    pd.testing.assert_frame_equal(read_snapshot(parts).events, read_snapshot(alone).events)
    pd.testing.assert_frame_equal(
        coded.spelt(read_snapshot(parts, in_blocks=True).events["user_id"].to_frame()), read_snapshot(alone).events[["user_id"]]
    )
    meta = {
        "prepare": {"max_user_events_per_day": 99, "keep_repeats": True, "positive_events": None, "positive_min_value": None},
        "rare_items": [],
        "event_types": ["buy", "view"],
        "default_event_type": "buy",
    }
    one, other = (look_up(folder / "events.parquet", ["1", "2", "3"], meta) for folder in (parts, alone))
    assert len(one) > 20
    pd.testing.assert_frame_equal(one, other)
    for folder in (parts, alone):
        make(folder / "events.parquet", tmp_path / f"{folder.parents[2].name}.db")
    assert (tmp_path / "parts.db").read_bytes() == (tmp_path / "alone.db").read_bytes()


def day_at_the_service(root: Path, number: int, deleted: str | None = None) -> None:
    """What people did on a day at the service, an item that is new, and one that is deleted."""
    store, begin = Store.open(store_file(root, NAME)), 1_700_500_000_000 + number * 86_400_000
    store.add_events(
        [Event(f"{number}-{one}", f"{one % 9}", f"{one % 30}", "view", begin + one * 1000, None, {"page": "x"}) for one in range(70)]
    )
    store.put_item(f"new-{number}", {"title": "New"})
    if deleted:
        store.delete_item(deleted)
    store.close()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_what_the_service_has_kept_is_laid_over_the_pieces(
    form: str, tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, root = tmp_path / "source", tmp_path / "mlruns"
    last = days(source, log(9, 400), [100, 200, 300, 400], form)[-1]
    last.rename(tmp_path / last.name)

    def nights() -> tuple[Path, int]:
        """A night, which is that of one that reads everything at once; and the rows that it has read."""
        data = DataConfig(events=str(source))
        read.clear()
        found, rows = collect(NAME, data, root), sum(read)
        with monkeypatch.context() as patch:
            patch.setattr(files, "PIECE", 10**6)
            elsewhere = Path(tempfile.mkdtemp(dir=tmp_path))
            shutil.copytree(root / "store", elsewhere / "store")
            if (root / "forgotten").is_dir():
                shutil.copytree(root / "forgotten", elsewhere / "forgotten")
            whole = collect(NAME, data, elsewhere)
        assert told(found.path) == told(whole.path)
        assert found.source["left_out"] == whole.source["left_out"] if "left_out" in whole.source else "left_out" not in found.source
        return found.path, rows

    day_at_the_service(root, 1)
    first, rows = nights()
    assert rows == 300
    assert (first / "events.parquet" / "000003.parquet").exists()
    day_at_the_service(root, 2)
    (tmp_path / last.name).rename(last)
    second, rows = nights()
    assert rows <= 240
    assert (second / "events.parquet" / "000000.parquet").samefile(first / "events.parquet" / "000000.parquet")
    day_at_the_service(root, 3, deleted="5")
    third, rows = nights()
    assert rows == 400, "an item that was deleted takes its events out of all parts"
    assert "5" not in set(read_snapshot(third).events["item_id"])
    forget(NAME, "7", root)
    day_at_the_service(root, 4)
    fourth, _ = nights()
    events = read_snapshot(fourth).events
    assert (events["user_id"] == "7").sum() == 7, "what came after they asked counts"
