"""`nightloom init`: what it guesses of tables in the forms that people have, and what it refuses."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.config import RunConfig, load_config
from nightloom.data.collect import collect
from nightloom.data.tables.snapshot import read_snapshot

START = 1_600_000_000


def ratings(users: int = 30, items: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = [(user, item) for user in range(1, users + 1) for item in rng.permutation(np.arange(1, items + 1))[:6]]
    frame = pd.DataFrame(rows, columns=["userId", "movieId"])
    return frame.assign(rating=rng.integers(1, 6, len(frame)), timestamp=START + 3600 * np.arange(len(frame)))


def movies(items: int = 12) -> pd.DataFrame:
    names = [f"The Film, part {number}" for number in range(1, items + 1)]
    genres = [["Drama|War", "Comedy", "Drama|Comedy"][number % 3] for number in range(items)]
    return pd.DataFrame({"movieId": range(1, items + 1), "title": names, "genres": genres})


def written(nightloom, folder: Path, *tables: str) -> RunConfig:  # type: ignore[no-untyped-def]
    """The config that `init` wrote for tables in a folder; it must also read them."""
    code, out, err = nightloom("init", *(folder / table for table in tables), "-o", folder / "mine.yaml")
    assert code == 0, err
    assert "check" in out.splitlines()[-1]
    return load_config(folder / "mine.yaml")


def test_tables_with_a_header_are_told_apart_and_their_columns_named(nightloom, tmp_path: Path) -> None:
    ratings().to_csv(tmp_path / "ratings.csv", index=False)
    movies().to_csv(tmp_path / "movies.csv", index=False)
    pd.DataFrame({"userId": range(1, 31), "age": 20, "country": "DE"}).to_csv(tmp_path / "people.csv", index=False)
    config = written(nightloom, tmp_path, "movies.csv", "people.csv", "ratings.csv")  # in any order
    assert config.data.columns == {
        "events": {"user_id": "userId", "item_id": "movieId", "timestamp": "timestamp", "value": "rating"},
        "items": {"item_id": "movieId", "title": "title", "genres": "genres"},
        "users": {"user_id": "userId", "age": "age", "country": "country"},
    }
    assert config.data.features == {"title": "text", "genres": "tags"}
    tables = read_snapshot(collect(config.name, config.data, tmp_path / "mlruns").path)
    assert (len(tables.events), tables.rejected) == (180, {})
    text = (tmp_path / "mine.yaml").read_text()
    assert "events: ratings.csv" in text  # relative to the YAML
    assert "times are read as 2020-09-13" in text


def test_tables_without_a_header_are_read_by_what_they_hold(nightloom, tmp_path: Path) -> None:
    ratings().to_csv(tmp_path / "u.data", sep="\t", index=False, header=False)
    movies().to_csv(tmp_path / "u.item", sep="|", index=False, header=False, quoting=3, columns=["movieId", "title"], encoding="latin-1")
    with (tmp_path / "u.item").open("ab") as file:
        file.write("13|Le Film, dernière partie\n".encode("latin-1"))
    config = written(nightloom, tmp_path, "u.data", "u.item")
    assert config.data.separator == {"events": "\t", "items": "|"}
    assert (config.data.header, config.data.encoding) == (False, {"events": "utf-8", "items": "latin-1"})
    # Users 1 to 30 hold all ids of the items, too: the column with just these is taken.
    assert config.data.columns["events"] == {"user_id": "1", "item_id": "2", "timestamp": "4", "value": "3"}
    assert config.data.columns["items"] == {"item_id": "1", "title": "2"}
    assert len(read_snapshot(collect(config.name, config.data, tmp_path / "mlruns").path).events) == 180


def test_separators_of_two_characters(nightloom, tmp_path: Path) -> None:
    for name, frame in (("ratings.dat", ratings()), ("movies.dat", movies())):
        lines = ["::".join(map(str, row)) for row in frame.itertuples(index=False)]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    config = written(nightloom, tmp_path, "ratings.dat", "movies.dat")
    assert (config.data.separator, config.data.header) == ("::", False)
    tables = read_snapshot(collect(config.name, config.data, tmp_path / "mlruns").path)
    assert tables.items is not None
    assert tables.items["title"].iloc[0] == "The Film, part 1"


def test_events_of_several_types(nightloom, tmp_path: Path) -> None:
    frame = ratings().drop(columns="rating").assign(action=["view", "purchase", "view"] * 60)
    pd.concat([frame, frame.assign(timestamp=frame["timestamp"] + 60)]).to_csv(tmp_path / "log.csv", index=False)
    config = written(nightloom, tmp_path, "log.csv")
    assert config.data.columns["events"]["event"] == "action"
    assert config.prepare.positive_events == ("purchase",)
    assert (config.prepare.keep_repeats, config.evaluation.exclude_seen) == (True, False)  # half of the events are repeats


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_folder_is_judged_by_all_of_its_small_files(form: str, nightloom, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "events").mkdir()
    for month in range(4):  # whoever comes again does so in another month
        table = ratings().assign(timestamp=START + 2_600_000 * month + np.arange(180))
        if form == "parquet":
            (tmp_path / "events" / f"month={month}").mkdir()
            table.to_parquet(tmp_path / "events" / f"month={month}" / "part-0.parquet", index=False)
        else:
            table.to_csv(tmp_path / "events" / f"{month}.csv", index=False)
    assert written(nightloom, tmp_path, "events").prepare.keep_repeats
    assert "# The folder is one table of 4 files.\n" in (tmp_path / "mine.yaml").read_text()
    later = tmp_path / "events" / (f"month=2/part-0.{form}" if form == "parquet" else "2.csv")
    if form == "parquet":
        ratings().assign(movieId=0.5).to_parquet(later, index=False)
    else:
        later.write_text("no,such;columns\n")
    code, _, err = nightloom("init", tmp_path / "events", "-o", tmp_path / "other.yaml")
    assert code == 0, err
    assert "one table of 4 files; it was judged by the first 2." in (tmp_path / "other.yaml").read_text()


def test_without_times_the_split_is_random(nightloom, tmp_path: Path) -> None:
    ratings()[["userId", "movieId"]].to_csv(tmp_path / "pairs.csv", index=False)
    config = written(nightloom, tmp_path, "pairs.csv")
    assert config.data.random_order
    assert config.evaluation.protocols == ("random",)


def test_missing_ids_and_repeated_keys_raise_the_limit_of_their_table(nightloom, tmp_path: Path) -> None:
    frame = ratings().astype({"userId": object})
    frame.loc[::4, "userId"] = "NA"
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    pd.concat([movies(40), movies(1)]).to_csv(tmp_path / "movies.csv", index=False)
    config = written(nightloom, tmp_path, "ratings.csv", "movies.csv")
    assert config.validation.max_bad_share == {"events": 0.3, "items": 0.07}


def test_an_sqlite_file_gives_all_its_tables(nightloom, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        ratings().to_sql("ratings", database, index=False)
        movies().to_sql("movies", database, index=False)
    config = written(nightloom, tmp_path, "shop.db")
    assert config.data.events == f"sqlite:///{tmp_path}/shop.db?table=ratings"
    assert config.data.columns["items"]["title"] == "title"


def test_a_file_that_is_there_is_overwritten_only_when_told(nightloom, tmp_path: Path) -> None:
    ratings().to_csv(tmp_path / "ratings.csv", index=False)
    (tmp_path / "mine.yaml").write_text("mine\n")
    code, _, err = nightloom("init", tmp_path / "ratings.csv", "-o", tmp_path / "mine.yaml")
    assert (code, "overwrite it with --force" in err) == (2, True)
    assert (tmp_path / "mine.yaml").read_text() == "mine\n"
    assert nightloom("init", tmp_path / "ratings.csv", "-o", tmp_path / "mine.yaml", "--force", "--name", "My Films!")[0] == 0
    assert load_config(tmp_path / "mine.yaml").name == "my-films"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("reviews.json", "[1, 2]\n", "holds no JSON objects"),
        ("notes.txt", "Just some words, on\nlines of\nno length at, all, that is\n", "Is it a table?"),
        ("empty.csv", "", "is empty"),
        ("sheet.csv", "PK\0\0\0", "is no text"),
        ("events.csv", "user,item,ts\n" + "".join(f"{n},{n % 7},{638_048_334_410_000_000 + n}\n" for n in range(50)), ".NET"),
    ],
)
def test_what_can_not_be_read_is_refused(nightloom, tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    code, _, err = nightloom("init", tmp_path / name, "-o", tmp_path / "mine.yaml")
    assert (code, said in err) == (2, True), err
    assert not (tmp_path / "mine.yaml").exists()


def test_a_table_of_neither_items_nor_users_is_refused(nightloom, tmp_path: Path) -> None:
    ratings().to_csv(tmp_path / "ratings.csv", index=False)
    pd.DataFrame({"code": ["x1", "x2"], "words": ["a", "b"]}).to_csv(tmp_path / "other.csv", index=False)
    code, _, err = nightloom("init", tmp_path / "ratings.csv", tmp_path / "other.csv", "-o", tmp_path / "mine.yaml")
    assert (code, "is neither items nor users" in err) == (2, True)
