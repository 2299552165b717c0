"""Tables as people have them: each is read whole and right, or refused by its right name. None gives figures that only look right."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightloom.config import DataConfig, load_config
from nightloom.core.errors import InputError
from nightloom.data.collect import collect
from nightloom.data.sources.files import read_table
from nightloom.data.tables.canonical import canonical
from nightloom.data.tables.schema import Tables
from nightloom.data.tables.snapshot import read_snapshot

Write = Callable[[Path], None]
TIME = 1_669_236_641
ROWS = [(user, item, TIME + 60 * user + item) for user in range(1, 9) for item in range(1, 6)]


def csv(rows: list[tuple[Any, ...]] = ROWS, separator: str = ",", header: str = "user,item,ts", end: str = "\n") -> str:
    lines = [header.replace(",", separator), *(separator.join(map(str, row)) for row in rows)]
    return "".join(line + end for line in lines)


def put(name: str, content: str | bytes) -> Write:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def frame(**changed: Any) -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["user", "item", "ts"]).assign(**changed)


def parquet(made: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    made.to_parquet(buffer, index=False)
    return buffer.getvalue()


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_csv", ".csv"), content)
    return buffer.getvalue()


def zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def excel(made: pd.DataFrame, **sheets: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="openpyxl") as writer:
        for name, sheet in {"Sheet1": made, **sheets}.items():
            sheet.to_excel(writer, sheet_name=name, index=False)
    return buffer.getvalue()


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def made(folder: Path, place: str = "events", columns: dict[str, str] | None = None, **keys: Any) -> Tables:
    data = DataConfig(
        events=str(folder / place), columns={"events": columns or {"user_id": "user", "item_id": "item", "timestamp": "ts"}}, **keys
    )
    return canonical({"events": read_table(str(folder / place), data, "events")}, data)


HALF = len(ROWS) // 2
RECORDS = frame().to_dict(orient="records")
READ: dict[str, tuple[list[Write], str, dict[str, Any]]] = {
    "blank first lines": ([put("events", "\n\r\n" + csv())], "events", {}),
    "sep= first": ([put("events", "sep=;\r\n" + csv(separator=";", end="\r\n"))], "events", {}),
    "separator at each row's end": ([put("events", csv(end=",\n"))], "events", {}),
    "separator at each row's end but the header's": ([put("events", "user,item,ts\n" + csv(end=",\n").split("\n", 1)[1])], "events", {}),
    "old Macintosh line ends": ([put("events", csv(end="\r"))], "events", {}),
    "UTF-16": ([put("events", csv(separator="\t").encode("utf-16"))], "events", {"encoding": "utf-16", "separator": "\t"}),
    "a file named otherwise": ([put("events.csv", gzip.compress(csv().encode()))], "events.csv", {}),
    "bzip2": ([put("e.csv.bz2", bz2.compress(csv().encode()))], "e.csv.bz2", {}),
    "xz": ([put("e.csv.xz", lzma.compress(csv().encode()))], "e.csv.xz", {}),
    "zstandard in two frames": (
        [put("e.csv.zst", zst(csv(ROWS[:HALF]).encode()) + zst(csv(ROWS[HALF:], header="").encode()))],
        "e.csv.zst",
        {},
    ),
    "zip of two": ([put("e.zip", zipped(a_csv=csv(ROWS[:HALF]), b_csv=csv(ROWS[HALF:])))], "e.zip", {}),
    "JSON lines": ([put("e.json", lines(RECORDS))], "e.json", {}),
    "JSON lines, packed": ([put("e.jsonl.gz", gzip.compress(lines(RECORDS).encode()))], "e.jsonl.gz", {}),
    "a JSON list": ([put("e.json", json.dumps(RECORDS, indent=1))], "e.json", {}),
    "Excel": ([put("e.xlsx", excel(frame()))], "e.xlsx", {}),
    "Excel beside an empty sheet": ([put("e.xlsx", excel(frame(), Notes=pd.DataFrame()))], "e.xlsx", {}),
    "Parquet of bytes": ([put("e.parquet", parquet(frame(user=[str(row[0]).encode() for row in ROWS])))], "e.parquet", {}),
    "a pattern": ([put("log-1.csv", csv(ROWS[:HALF])), put("log-2.csv", csv(ROWS[HALF:])), put("x.doc", "x")], "log-*.csv", {}),
    "Hive partitions": (
        [
            put("events/day=a/part-0.parquet", parquet(frame().head(HALF))),
            put("events/day=b/part-0.parquet", parquet(frame().tail(HALF))),
        ],
        "events",
        {},
    ),
    "sub folders and packers": (
        [
            put("events/a.csv", csv(ROWS[:10])),
            put("events/old/b.csv.bz2", bz2.compress(csv(ROWS[10:20]).encode())),
            put("events/old/older/c.csv.zip", zipped(c_csv=csv(ROWS[20:30]))),
            put("events/part-00000", csv(ROWS[30:])),
            put("events/README.txt", "How these were made."),
            put("events/_SUCCESS", ""),
            put("events/.a.csv.crc", "x"),
        ],
        "events",
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_what_people_have_is_read_whole(tmp_path: Path, case: str) -> None:
    writes, place, keys = READ[case]
    for write in writes:
        write(tmp_path)
    tables = made(tmp_path, place, **keys)
    assert tables.rejected == {}
    found = tables.events[["user_id", "item_id"]].astype("int64").to_numpy().tolist()
    assert sorted(found) == [[user, item] for user, item, _ in ROWS]


REFUSED: dict[str, tuple[list[Write], str, str]] = {
    "an SQLite file": ([put("shop.db", b"SQLite format 3\x00" + b"x" * 100)], "shop.db", r"an SQLite database: write sqlite:///.*\?table=NAME"),
    "old Excel": ([put("e.xls", b"\xd0\xcf\x11\xe0" + b"x" * 100)], "e.xls", r"old Excel workbook \(\.xls\)"),
    "a pickle": ([put("e.pkl", b"\x80\x04" + b"x" * 100)], "e.pkl", "a pickle, which is not opened"),
    "a web page": ([put("e.csv", "\n<!DOCTYPE html><html>Log in</html>")], "e.csv", "a web page, perhaps of a login"),
    "a pointer": ([put("e.csv", "version https://git-lfs.github.com/spec/v1\n")], "e.csv", "a pointer of Git LFS"),
    "ORC": ([put("e.orc", b"ORC" + b"x" * 100)], "e.orc", "an ORC file"),
    "a cut gzip": ([put("e.csv.gz", gzip.compress(csv().encode())[:-9])], "e.csv.gz", "cut short or damaged"),
    "a cut bzip2": ([put("e.csv.bz2", bz2.compress(csv().encode())[:-5])], "e.csv.bz2", "cut short or damaged"),
    "a cut zstandard": ([put("e.csv.zst", zst(csv().encode())[:-5])], "e.csv.zst", "cut short or damaged"),
    "a cut zip": ([put("e.zip", zipped(a_csv=csv())[:-9])], "e.zip", "cannot be read as a zip archive"),
    "two sheets": ([put("e.xlsx", excel(frame(), Other=frame()))], "e.xlsx", "tables in 2 sheets: Sheet1, Other"),
    "one JSON object around the rows": ([put("e.json", json.dumps({"events": RECORDS}))], "e.json", "rows lie in its list 'events'"),
    "a Delta table": ([put("events/p.parquet", parquet(frame())), put("events/_delta_log/0.json", "{}")], "events", "a Delta Lake table"),
    "an unfinished job": ([put("events/p.csv", csv()), put("events/_temporary/0/p.csv", csv())], "events", "still being written"),
    "a file of another kind": (
        [put("events/p.csv", csv()), put("events/old/x.doc", "x")],
        "events",
        r"1 of 2 files .* for example old/x\.doc",
    ),
    "the same rows twice": ([put("events/p.csv", csv()), put("events/p.csv.gz", gzip.compress(csv().encode()))], "events", "counted twice"),
    "UTF-16 that nobody said": ([put("e.csv", csv().encode("utf-16"))], "e.csv", "data.encoding: utf-16"),
    "sep= against the config": ([put("e.csv", "sep=;\n" + csv(separator=";"))], "e.csv", r'data\.separator: ";"'),
    "FILETIME": ([put("e.csv", csv([(u, i, 116_444_736_000_000_000 + t * 10**7) for u, i, t in ROWS]))], "e.csv", "1601"),
    "times as digits": ([put("e.csv", csv([(u, i, f"2022041822{i:02}") for u, i, _ in ROWS]))], "e.csv", "YYYYMMDDHHMM"),
    "ids of Excel": (
        [put("e.csv", csv([(u, f"1.23457E+{10 + i}", t) for u, i, t in ROWS]))],
        "e.csv",
        "e.csv: 40 of 40 ids such as '1.23457E.*no exact ids",
    ),
    "large floats as text": ([put("e.csv", csv([(u, f"{2**60 + i * 1000}.0", t) for u, i, t in ROWS]))], "e.csv", "no exact ids"),
    "large floats in one part": (
        [
            put("events/a.parquet", parquet(frame(item=[2**60 + row[1] for row in ROWS]))),
            put("events/b.parquet", parquet(frame(item=[float(2**60 + row[1]) for row in ROWS]))),
        ],
        "events",
        r"column 'item' of .*b\.parquet: 40 of 80 ids",
    ),
    "bytes that are no text": (
        [put("e.parquet", parquet(frame(item=[bytes([200, row[1]]) for row in ROWS])))],
        "e.parquet",
        "bytes that are no text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_its_name(tmp_path: Path, case: str) -> None:
    writes, place, words = REFUSED[case]
    for write in writes:
        write(tmp_path)
    with pytest.raises(InputError, match=words):
        made(tmp_path, place, separator="|") if "sep=" in case else made(tmp_path, place)


@pytest.mark.parametrize(
    ("separator", "cells"),
    [("\t", ['"dry" crust', '"so called', 'x"y', "plain", '2"']), ("\t", ['"open', "plain", 'shut"']), (",", ['"open', "plain", 'shut"'])],
)
def test_a_quote_that_is_a_letter_swallows_no_line(tmp_path: Path, separator: str, cells: list[str]) -> None:
    rows = [(*row, cells[at % len(cells)]) for at, row in enumerate(ROWS)]
    put("e", csv(rows, separator, "user,item,ts,tag"))(tmp_path)
    tables = made(tmp_path, "e", separator=separator)
    assert len(tables.events) == len(ROWS)


def test_lines_that_a_quote_swallowed_are_put_aside_and_counted(tmp_path: Path) -> None:
    rows = [(*row, "fine") for row in ROWS]
    rows[3], rows[6], rows[9] = (*ROWS[3], '"open'), (*ROWS[6], 'shut"'), (*ROWS[9], '"said, quoted"')
    put("e.csv", csv(rows, header="user,item,ts,tag"))(tmp_path)
    tables = made(tmp_path, "e.csv")
    assert len(tables.events) + len(tables.rejected["events"]) == len(ROWS)
    assert tables.rejected["events"]["reason"].unique().tolist() == ["a quote that is not closed in its line swallows the lines after it"]
    assert len(tables.rejected["events"]) == 4


def test_text_of_several_lines_in_quotes_is_one_cell(tmp_path: Path) -> None:
    rows = [(*row, '"Good, ""fine""\nbread, and\n\nmore"') for row in ROWS]
    put("e.csv", csv(rows, header="user,item,ts,tag"))(tmp_path)
    tables = made(tmp_path, "e.csv", {"user_id": "user", "item_id": "item", "timestamp": "ts", "tag": "tag"})
    assert tables.rejected == {}
    assert tables.events["tag"].unique().tolist() == ['Good, "fine"\nbread, and\n\nmore']


def test_a_header_in_the_middle_is_no_event(tmp_path: Path) -> None:
    put("e.csv", csv(ROWS[:HALF]) + csv(ROWS[HALF:]))(tmp_path)
    tables = made(tmp_path, "e.csv")
    assert (len(tables.events), tables.rejected["events"]["reason"].tolist()) == (len(ROWS), ["the header once more"])


def test_json_keeps_ids_exact_and_puts_broken_lines_aside(tmp_path: Path) -> None:
    big = 12345678901234567890123
    text = lines([{"user": {"id": 2.0}, "item": big, "ts": TIME}, {"user": {"id": 3}, "item": "007", "ts": TIME, "more": [1]}])
    put("e.json", text + "\n{broken\n[1]\n")(tmp_path)
    tables = made(tmp_path, "e.json", {"user_id": "user.id", "item_id": "item", "timestamp": "ts"})
    assert tables.events[["user_id", "item_id"]].to_numpy().tolist() == [["2", str(big)], ["3", "007"]]
    assert tables.rejected["events"][["row", "raw"]].to_numpy().tolist() == [[3, "{broken"], [4, "[1]"]]


@pytest.mark.parametrize("written", [12, 12.0, "12", " 12 ", "12.0", "\u00a012\ufeff", b"12", Decimal("12.00")])
def test_one_id_has_one_spelling_whatever_carried_it(tmp_path: Path, written: Any) -> None:
    from nightloom.data.tables.convert import to_ids

    ids, missing = to_ids(pd.Series([written, None, "B7"], dtype=object))
    assert ids[0] == "12"
    assert missing.tolist() == [False, True, False]
    assert to_ids(pd.Series(["é", "e\u0301"]))[0].nunique() == 1


def test_parts_that_carry_ids_in_other_types_meet(tmp_path: Path) -> None:
    for name, items in {"a": [1, 2], "b": [1.0, 2.0], "c": ["1", "2.0"]}.items():
        put(f"events/{name}.parquet", parquet(pd.DataFrame({"user": ["u", "v"], "item": items, "ts": TIME})))(tmp_path)
    assert made(tmp_path).events["item_id"].tolist() == ["1", "2"] * 3


def test_a_user_called_na_stays_among_names_and_is_missing_among_numbers(tmp_path: Path) -> None:
    for name, users, kept in (("names", ["Anna", "Bob", "NA", "Anna"], 4), ("numbers", ["1", "2", "NA", "1"], 3)):
        put(name, csv([(user, "i", TIME) for user in users]))(tmp_path)
        assert len(made(tmp_path, name).events) == kept


@pytest.mark.parametrize("query", ["SELECT * FROM log WHERE kind NOT LIKE '%add%'", "SELECT * FROM log WHERE kind <> 'add' AND 1 + 1 = 2"])
def test_sql_is_taken_as_written(tmp_path: Path, query: str) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as base, base:
        frame(kind=["add", "view"] * HALF).to_sql("log", base, index=False)
    (tmp_path / "mine.yaml").write_text(
        f'name: mine\ndata:\n  events: "sqlite:///shop.db?query={query}"\n'
        "  columns: {events: {user_id: user, item_id: item, timestamp: ts, event: kind}}\n"
    )
    config = load_config(tmp_path / "mine.yaml")
    tables = read_snapshot(collect(config.name, config.data, tmp_path / "mlruns").path)
    assert tables.events["event"].value_counts().to_dict() == {"view": HALF}


@pytest.mark.parametrize("query", ["drop table log", "WITH x AS (SELECT 1) DELETE FROM log", "DELETE FROM log RETURNING *"])
def test_a_query_can_only_read(tmp_path: Path, query: str) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as base, base:
        frame().to_sql("log", base, index=False)
    before = (tmp_path / "shop.db").read_bytes()
    with pytest.raises(InputError, match=r"only a query that reads|readonly database"):
        read_table(f"sqlite:///{tmp_path}/shop.db?query={query}", DataConfig(events="x"), "events")
    assert (tmp_path / "shop.db").read_bytes() == before


def test_times_with_a_named_zone(tmp_path: Path) -> None:
    put("e.csv", csv([(u, i, f"2019-10-0{i} 00:00:0{u} UTC") for u, i, _ in ROWS]))(tmp_path)
    tables = made(tmp_path, "e.csv")
    assert tables.events["timestamp"].min() == pd.Timestamp("2019-10-01 00:00:01", tz="UTC")


def test_whole_numbers_of_the_context_are_codes_unless_said_otherwise(tmp_path: Path) -> None:
    rows = [(*row, 137 + row[0], 1.5 * row[1]) for row in ROWS]
    put("e.csv", csv(rows, header="user,item,ts,channel,depth"))(tmp_path)
    columns = {"user_id": "user", "item_id": "item", "timestamp": "ts", "channel": "channel", "depth": "depth"}
    tables = made(tmp_path, "e.csv", columns)
    assert [tables.events[name].dtype for name in ("channel", "depth")] == ["str", "float64"]
    assert "data.features: {channel: number}" in tables.notes[0]
    said = made(tmp_path, "e.csv", columns, features={"channel": "number"})
    assert (said.events["channel"].dtype, said.notes) == ("float64", [])


def test_what_looks_right_and_may_not_be_is_told(tmp_path: Path) -> None:
    events = frame(kind=["view", " purchase", "Purchase", "purchase"] * 10)
    events = pd.concat([events, *([frame(kind="view", user=77)] * 3), *[frame(kind="view", user=70 + n).head(1) for n in range(5)]])
    put("e.csv", events.to_csv(index=False))(tmp_path)
    tables = made(tmp_path, "e.csv", {"user_id": "user", "item_id": "item", "timestamp": "ts", "event": "kind"})
    assert any("'purchase' (20 rows) and 'Purchase' (10 rows)" in note for note in tables.notes)
    assert any("are of one user, '77'" in note for note in tables.notes)


@pytest.mark.parametrize(("change", "words"), [(lambda n: f"{n:04}", "leading zeros"), (lambda n: f"u{n}", "before the number")])
def test_users_of_whom_none_is_in_the_events_are_refused(tmp_path: Path, change: Callable[[int], str], words: str) -> None:
    put("e.csv", csv())(tmp_path)
    put("u.csv", "user_id,age\n" + "".join(f"{change(n)},3{n}\n" for n in range(1, 9)))(tmp_path)
    data = DataConfig(events="e", columns={"events": {"user_id": "user", "item_id": "item", "timestamp": "ts"}})
    raw = {name: read_table(str(tmp_path / f"{name[0]}.csv"), data, name) for name in ("events", "users")}
    with pytest.raises(InputError, match=f"users: none of its 8 ids is in the events.*{words}"):
        canonical(raw, data)


@pytest.mark.parametrize(
    "genres",
    [
        [[{"id": 1, "name": "Bread"}, {"id": 2, "name": "Food"}]] * 4,
        ['[{"id": 1, "name": "Bread"}, {"id": 2, "name": "Food"}]'] * 4,
        ["[{'id': 1, 'name': 'Bread'}, {'id': 2, 'name': 'Food'}]"] * 4,
        [["Bread", "Food"]] * 4,
    ],
)
def test_lists_and_objects_in_cells_become_words(tmp_path: Path, genres: list[Any]) -> None:
    items = pd.DataFrame({"item_id": [1, 2, 3, 4], "genres": genres})
    pq.write_table(pa.Table.from_pandas(items, preserve_index=False), tmp_path / "i.parquet")
    put("e.csv", csv())(tmp_path)
    data = DataConfig(events="e", columns={"events": {"user_id": "user", "item_id": "item", "timestamp": "ts"}})
    raw = {name: read_table(str(tmp_path / place), data, name) for name, place in {"events": "e.csv", "items": "i.parquet"}.items()}
    tables = canonical(raw, data)
    assert tables.items is not None
    assert tables.items["genres"].tolist() == ["Bread|Food"] * 4
    assert tables.features["genres"] == "tags"


def test_a_proposed_column_is_quoted_as_yaml(tmp_path: Path) -> None:
    put("e.csv", csv(header="#user id,item,ts"))(tmp_path)
    with pytest.raises(InputError, match=r'data\.columns\.events\.user_id: "#user id"'):
        made(tmp_path, "e.csv", {"user_id": "user_id", "item_id": "item", "timestamp": "ts"})
