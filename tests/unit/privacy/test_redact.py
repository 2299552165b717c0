"""One person's id leaves files of every kind; the other people's stay, also where ids are numbers."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from nightloom.core.digests import read_sealed, write_sealed
from nightloom.privacy.redact import redact

CANARY, NUMBER = "canary-zeta", "196"


@pytest.mark.parametrize("user", [CANARY, NUMBER])
def test_rows_of_tables(tmp_path: Path, user: str) -> None:
    path = tmp_path / "rejected_events.parquet"
    raws = [json.dumps({"userId": user, "rating": "x"}), json.dumps({"userId": f"{user}7"}), f"{user},5,not a time", None]
    table = pd.DataFrame({"user_id": ["a", "b", "c", user], "item_id": [NUMBER] * 4, "raw": raws})
    table.to_parquet(path, index=False)
    assert redact(path, user)
    assert pd.read_parquet(path)["user_id"].tolist() == ["b"]
    assert not redact(path, user)


def test_a_number_that_is_an_items_id_stays(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pd.DataFrame({"user_id": ["a", NUMBER], "item_id": [NUMBER, "b"]}).to_parquet(path, index=False)
    assert redact(path, NUMBER)
    assert pd.read_parquet(path).to_dict("records") == [{"user_id": "a", "item_id": NUMBER}]


@pytest.mark.parametrize("user", [CANARY, NUMBER])
def test_json(tmp_path: Path, user: str) -> None:
    path = tmp_path / "report.json"
    content = {
        "sample_lists": {"users": [{"user_id": user, "top": ["196"]}, {"user_id": "b", "top": ["196", "7"]}]},
        "checks": [{"column": "user_id", "examples": [user, "b"]}, {"column": "item_id", "examples": ["196"]}],
        "explanations": [{"title": "A film", "text": f"for user {user}", "user_id": "c"}],
        "figure": 196,
    }
    path.write_text(json.dumps(content))
    assert redact(path, user)
    made = json.loads(path.read_text())
    assert [one["user_id"] for one in made["sample_lists"]["users"]] == ["b"]
    assert made["sample_lists"]["users"][0]["top"] == ["196", "7"]
    assert [one["examples"] for one in made["checks"]] == [["b"], ["196"]]
    assert made["explanations"][0]["text"] == "for user [forgotten]"
    assert made["figure"] == 196
    assert not redact(path, user)


def test_a_sealed_file_is_sealed_again(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_sealed(path, {"figures": {"users": ["a", CANARY]}, "key": "k"})
    assert redact(path, CANARY)
    assert read_sealed(path) == {"figures": {"users": ["a"]}, "key": "k"}


def test_pages(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(f"<summary>User {NUMBER}</summary><td>{NUMBER}</td> for user 1967 <b>{CANARY}</b> {CANARY}-2", encoding="utf-8")
    assert redact(page, NUMBER)
    assert redact(page, CANARY)
    assert page.read_text() == f"<summary>User [forgotten]</summary><td>{NUMBER}</td> for user 1967 <b>[forgotten]</b> {CANARY}-2"


@pytest.mark.parametrize("user", ["o'neil & <b>", "名前の人", "a.b*c+d"])
def test_ids_of_odd_letters(tmp_path: Path, user: str) -> None:
    import html

    page, data = tmp_path / "page.html", tmp_path / "data.json"
    page.write_text(f"<td>{html.escape(user)}</td>", encoding="utf-8")
    data.write_text(json.dumps({"said": f"saw {user} twice"}), encoding="utf-8")
    assert redact(page, user)
    assert redact(data, user)
    assert page.read_text(encoding="utf-8") == "<td>[forgotten]</td>"
    assert json.loads(data.read_text(encoding="utf-8")) == {"said": "saw [forgotten] twice"}


@pytest.mark.parametrize("user", [CANARY, NUMBER])
def test_rows_of_csv(tmp_path: Path, user: str) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f'user_id,item_id,reason\n{user},1,"bad, so"\nb,{NUMBER},bad\n', encoding="utf-8")
    assert redact(path, user)
    assert path.read_text() == f"user_id,item_id,reason\nb,{NUMBER},bad\n"


def test_packed_files(tmp_path: Path) -> None:
    path = tmp_path / "docs.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("index.html", f"<b>{CANARY}</b>")
        packed.writestr("other.bin", b"\x00\x01")
    assert redact(path, CANARY)
    with zipfile.ZipFile(path) as packed:
        assert packed.read("index.html") == b"<b>[forgotten]</b>"
        assert packed.read("other.bin") == b"\x00\x01"


def test_an_empty_table_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rejected_items.parquet"
    pd.DataFrame({"user_id": pd.Series([], dtype="str")}).to_parquet(path, index=False)
    before = path.read_bytes()
    assert not redact(path, CANARY)
    assert path.read_bytes() == before
