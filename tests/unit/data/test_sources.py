from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.files import read_table
from nightloom.data.sources.raw import RawTable


def read(path: Path, name: str = "events", **keys: Any) -> RawTable:
    return read_table(str(path), DataConfig(events=str(path), **keys), name)


def refused(path: Path, *words: str, name: str = "events", **keys: Any) -> None:
    with pytest.raises(InputError) as caught:
        read(path, name, **keys)
    for word in words:
        assert word in str(caught.value)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is neither a file nor a folder")
    refused(Path("/dev/zero"), "is neither a file nor a folder")
    refused(tmp_path / ("a" * 300), "can not be looked at (File name too long)")
    for encoding in ("hex", "rot13", "no such"):
        refused(write(tmp_path / "e.csv", "user_id,item_id\na,b\n"), "there is no encoding", encoding=encoding)


def test_csv_cells_stay_text_as_written(tmp_path: Path) -> None:
    frame = read(write(tmp_path / "e.csv", 'user_id,item_id,note\n007,12.0,"a, b\nc"\nnan,NA,\n')).frame
    assert frame.iloc[0].tolist() == ["007", "12.0", "a, b\nc"]
    assert frame.iloc[1, :2].tolist() == ["nan", "NA"]
    assert frame["note"].isna().tolist() == [False, True]
    assert frame.index.tolist() == [1, 2]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_with_a_byte_order_mark_and_windows_line_ends(tmp_path: Path, mark: bytes) -> None:
    frame = read(write(tmp_path / "e.csv", mark + "user_id,item_id\r\né,b\r\n".encode())).frame
    assert frame.to_dict("list") == {"user_id": ["é"], "item_id": ["b"]}


def test_csv_packed_with_gzip(tmp_path: Path) -> None:
    assert read(write(tmp_path / "e.csv.gz", gzip.compress(b"user_id,item_id\n1,2\n"))).frame["item_id"].tolist() == ["2"]


def test_csv_in_another_encoding_and_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "user_id;item_id\nJosé;b\n".encode("latin-1"))
    assert read(path, encoding="latin-1", separator=";").frame["user_id"].tolist() == ["José"]


def test_parquet_integers_stay_integers_next_to_missing_values(tmp_path: Path) -> None:
    pd.DataFrame({"user_id": pd.array([12, None], dtype="Int64"), "item_id": [1, 2]}, index=[5, 9]).to_parquet(tmp_path / "e.parquet")
    frame = read(tmp_path / "e.parquet").frame
    assert frame["user_id"].tolist() == [12, pd.NA]
    assert frame.columns.tolist() == ["user_id", "item_id"]
    assert frame.index.tolist() == [1, 2]


def test_a_folder_is_read_part_by_part_by_name(tmp_path: Path) -> None:
    write(tmp_path / "part-2.csv", "user_id,item_id\nc,1\n")
    write(tmp_path / "part-1.csv", "item_id,user_id\n1,a\n1,b\n")
    write(tmp_path / "_SUCCESS", "")
    write(tmp_path / ".part-1.csv.crc", "x")
    table = read(tmp_path)
    assert table.frame["user_id"].tolist() == ["a", "b", "c"]
    assert table.frame.index.tolist() == [1, 2, 1]
    assert [Path(file).name for file in table.files([0, 1, 2])] == ["part-1.csv", "part-1.csv", "part-2.csv"]


def test_a_folder_of_parquet(tmp_path: Path) -> None:
    for part in range(2):
        pd.DataFrame({"user_id": [part], "item_id": [7]}).to_parquet(tmp_path / f"{part}.parquet")
    assert read(tmp_path).frame["user_id"].tolist() == [0, 1]


def test_ragged_rows_are_put_aside_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    table = read(write(tmp_path / "e.csv", "user_id,item_id\na,1\nb,2,3\nc,4\nd\ne,5\n"))
    assert table.frame["user_id"].tolist() == ["a", "c", "e"]
    assert table.frame.index.tolist() == [1, 3, 5]
    assert table.unreadable["row"].tolist() == [2, 4]
    assert table.unreadable["raw"].tolist() == ["b,2,3", "d"]
    assert table.unreadable["reason"].iloc[0] == "3 columns instead of 2: quote cells that hold ','"


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", "none.csv", "does not exist", "data.items", name="items")


@pytest.mark.parametrize("content", ["", "\n", "user_id,item_id\n"])
def test_empty_csv(tmp_path: Path, content: str) -> None:
    refused(write(tmp_path / "e.csv", content), "events", "e.csv")


def test_empty_parquet(tmp_path: Path) -> None:
    pd.DataFrame({"item_id": []}).to_parquet(tmp_path / "e.parquet")
    refused(tmp_path / "e.parquet", "no rows", "leave that key out", name="items")


@pytest.mark.parametrize(("head", "line"), [("user_id,item_id\nok,1\n", 3), ("", 1)])
def test_not_utf8_names_the_byte_and_the_remedy(tmp_path: Path, head: str, line: int) -> None:
    path = write(tmp_path / "e.csv", head.encode() + b"Jos\xe9,2\n")
    refused(path, "e.csv", "is not utf-8", "0xe9", f"offset {len(head) + 3:,} (line {line})", "data.encoding: latin-1")


def test_not_in_the_encoding_that_the_config_says(tmp_path: Path) -> None:
    refused(write(tmp_path / "e.csv", "user_id,item_id\nJosé,2\n"), "is not ascii", "line 2", encoding="ascii")


def test_unknown_encoding(tmp_path: Path) -> None:
    refused(write(tmp_path / "e.csv", "user_id,item_id\na,2\n"), "no encoding 'utf-9'", encoding="utf-9")


def test_no_separator_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("a,b\n1,2\n")
    refused(tmp_path / "e.csv", "data.separator is empty", separator="")


@pytest.mark.parametrize(("separator", "spelt"), [(";", '";"'), ("\t", '"\\t"'), ("|", '"|"')])
def test_another_separator_is_guessed(tmp_path: Path, separator: str, spelt: str) -> None:
    refused(write(tmp_path / "e.csv", f"user_id{separator}item_id\na{separator}2\n"), f"set data.separator: {spelt}")


def test_a_column_twice(tmp_path: Path) -> None:
    refused(write(tmp_path / "e.csv", "user_id,item_id,item_id\na,1,2\n"), "more than one column named 'item_id'")


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pd.DataFrame({"user_id": range(1000), "item_id": 1}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "e.parquet", "bytes) is not a whole Parquet file", "cut short")


def test_parquet_with_a_damaged_middle(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"user_id": [f"u{n}" for n in range(5000)]}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[200:600] = b"\x00" * 400
    path.write_bytes(content)
    refused(path, "not a whole Parquet file")


def test_damaged_gzip(tmp_path: Path) -> None:
    refused(write(tmp_path / "e.csv.gz", b"no gzip at all"), "e.csv.gz", "cannot be read")


def test_a_folder_without_tables(tmp_path: Path) -> None:
    write(tmp_path / "readme.md", "x")
    refused(tmp_path, "holds no table", ".parquet")


def test_a_folder_of_both_kinds(tmp_path: Path) -> None:
    write(tmp_path / "e.csv", "user_id,item_id\na,1\n")
    pd.DataFrame({"user_id": ["a"], "item_id": [7]}).to_parquet(tmp_path / "e.parquet")
    refused(tmp_path, "both CSV and Parquet", "Keep one kind")


def test_parts_with_other_columns(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "user_id,item_id\na,1\n")
    write(tmp_path / "2.csv", "user_id,item\na,1\n")
    refused(tmp_path, "2.csv", "1.csv", "['item', 'item_id']")
