"""Text tables without a header or with a separator of several characters, by YAML alone, and what a folder's parts may be called."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from nightloom.config import DataConfig, config_from_dict, load_config
from nightloom.core.errors import InputError
from nightloom.data.collect import collect
from nightloom.data.sources.files import read_table
from nightloom.data.tables.snapshot import read_snapshot


def data(**keys: Any) -> DataConfig:
    return DataConfig(events="events.dat", **keys)


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("1::661::3::978302109\n2::914::5::978301968\n", "::"),
        ("1\t661\t3\t978302109\n2\t914\t5\t978301968\n", "\t"),
        ("1 661  3\t978302109\n 2 914 5 978301968 \n", "whitespace"),
    ],
)
def test_columns_without_a_header_are_named_by_their_number(tmp_path: Path, text: str, separator: str) -> None:
    (tmp_path / "events.dat").write_text(text)
    frame = read_table(str(tmp_path / "events.dat"), data(separator=separator, header=False), "events").frame
    assert frame.to_dict("list") == {"1": ["1", "2"], "2": ["661", "914"], "3": ["3", "5"], "4": ["978302109", "978301968"]}
    assert frame.index.tolist() == [1, 2]


@pytest.mark.parametrize("separator", ["::", "|"])
def test_a_row_of_other_width_keeps_its_number(tmp_path: Path, separator: str) -> None:
    rows = [separator.join(row) for row in (["1", "661", "3"], ["1", "662"], ["2", "914", "5"])]
    (tmp_path / "events.dat").write_text("\n".join(rows) + "\n")
    table = read_table(str(tmp_path / "events.dat"), data(separator=separator, header=False), "events")
    assert table.frame.index.tolist() == [1, 3]
    assert table.unreadable[["row", "raw"]].to_dict("list") == {"row": [2], "raw": [rows[1]]}


def test_each_table_may_have_its_own_form(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    (tmp_path / "u.item").write_bytes("242|Kolya (1996)\n302|Léon (1994)\n".encode("latin-1"))
    (tmp_path / "mine.yaml").write_text(
        "name: mine\n"
        "data:\n"
        "  events: u.data\n"
        "  items: u.item\n"
        '  separator: {events: "\\t", items: "|"}\n'
        "  encoding: {items: latin-1}\n"
        "  header: false\n"
        "  columns:\n"
        "    events: {user_id: 1, item_id: 2, value: 3, timestamp: 4}\n"
        "    items: {item_id: 1, title: 2}\n"
    )
    config = load_config(tmp_path / "mine.yaml")
    tables = read_snapshot(collect(config.name, config.data, tmp_path / "mlruns").path)
    assert tables.events["user_id"].tolist() == ["196", "186"]
    assert tables.events["timestamp"].dt.year.tolist() == [1997, 1998]
    assert tables.items is not None
    assert tables.items["title"].tolist() == ["Kolya (1996)", "Léon (1994)"]


def test_a_first_line_of_data_is_suspected(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("196,242,3,881250949\n186,302,3,891717742\n")
    config = config_from_dict({"name": "mine", "data": {"events": str(tmp_path / "ratings.csv")}})
    with pytest.raises(InputError, match=r"set data\.header: false; columns are then named 1, 2"):
        collect(config.name, config.data, tmp_path / "mlruns")


def test_a_folder_of_texts_is_read_whole_or_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("user,item\n1,2\n")
    (tmp_path / "b.dat.gz").write_bytes(gzip.compress(b"user,item\n3,4\n"))
    (tmp_path / "README.txt").write_text("How these were made.\n")
    assert read_table(str(tmp_path), data(), "events").frame["user"].tolist() == ["1", "3"]
    (tmp_path / "c.doc").write_bytes(b"x")
    with pytest.raises(InputError, match=r"1 of 3 files in the folder .* are not read, for example c\.doc"):
        read_table(str(tmp_path), data(), "events")
