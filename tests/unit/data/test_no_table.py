"""A file that is no table is not read out: whoever may name a file in a config need not have the right to read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.collect import collect
from nightloom.data.draft.look import look_at
from nightloom.data.draft.roles import assign

PLANTED = "pl4nted"
NO_TABLES = {
    "passwords": "root:$6$pl4nted$pl4nted:20228:0:99999:7:::\ndaemon:*:20228:0:99999:7:::\n",
    "accounts": "root:x:0:0:pl4nted:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n",
    "settings": "API_KEY=pl4nted,DEBUG=1\nUSER=pl4nted,PORT=3\n",
    "key": "-----BEGIN PRIVATE KEY-----\npl4ntedpl4nted\npl4nted\n-----END PRIVATE KEY-----\n",
    "log": "2026-01-02 03:04:05,123 INFO token pl4nted was given | user 7\n2026-01-02 03:04:06,456 INFO bye | user 8\n",
    "line": "pl4nted\npl4nted\n",
    "binary": "pl4nted\x01\x02,\x03\n1,2\n",
}


@pytest.mark.parametrize("separator", [",", ":", "|", "::", "whitespace"])
@pytest.mark.parametrize("name", NO_TABLES)
@pytest.mark.parametrize("columns", [{}, {"events": {"user_id": "pl4nte", "item_id": "roo", "timestamp": "x"}}])
def test_nothing_of_it_is_told(tmp_path: Path, name: str, separator: str, columns: dict[str, Any]) -> None:
    path = tmp_path / "file"
    path.write_text(NO_TABLES[name])
    with pytest.raises(InputError) as caught:
        collect("mine", DataConfig(events=str(path), separator=separator, columns=columns), tmp_path / "mlruns")
    said = str(caught.value).replace("pl4nte'", "").replace("'roo'", "")
    assert str(path) in said
    assert PLANTED not in said
    assert "20228" not in said
    assert "Did you mean" not in said


@pytest.mark.parametrize("name", ["line", "key"])
def test_init_does_not_read_it_out_either(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    path.write_text(NO_TABLES[name])
    with pytest.raises(InputError) as caught:
        assign(look_at(str(path)))
    assert PLANTED not in str(caught.value)


def test_two_columns_of_one_name_and_parts_that_differ(tmp_path: Path) -> None:
    (tmp_path / "twice").write_text("a=pl4nted,a=pl4nted\n1,2\n")
    with pytest.raises(InputError, match="two columns of one name") as caught:
        collect("mine", DataConfig(events=str(tmp_path / "twice")), tmp_path / "mlruns")
    assert PLANTED not in str(caught.value)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.csv").write_text("user_id,item_id,timestamp\na,b,1\n")
    (tmp_path / "parts" / "b.csv").symlink_to(tmp_path / "twice2")
    (tmp_path / "twice2").write_text("a=pl4nted,b\n1,2\n")
    with pytest.raises(InputError, match="differ in columns") as caught:
        collect("mine", DataConfig(events=str(tmp_path / "parts")), tmp_path / "mlruns")
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "keys", "told"),
    [
        ("userId;movieId;time\na;b;1\n", {}, "has one column, 'userId;movieId;time', when cut at ','. It looks cut at"),
        (
            "user_id:token\titem:token\ttimestamp:float\na\tb\t1\n",
            {"separator": "\t"},
            "It has: user_id:token, item:token, timestamp:float.",
        ),
        ("Käufer Nr.,Artikel (ID),% Rabatt,Preis in $\na,b,1,2\n", {}, "It has: Käufer Nr., Artikel (ID), % Rabatt, Preis in $."),
        ("用户,物品,时间\na,b,1\n", {}, "It has: 用户, 物品, 时间."),
        ("user_id,,,item_id\na,1,2,b\n", {}, "leaves 2 columns without a name. Name each of them."),
        ("196,242,3,881250949\n186,302,3,891717742\n", {}, "set data.header: false"),
        ("".join(f"column {at}," for at in range(60)) + "last\n" + "1," * 60 + "1\n", {}, "column 39 and 21 more."),
    ],
)
def test_of_a_real_table_the_columns_are_told(tmp_path: Path, text: str, keys: dict[str, Any], told: str) -> None:
    (tmp_path / "events.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        collect("mine", DataConfig(events=str(tmp_path / "events.csv"), **keys), tmp_path / "mlruns")
    assert told in str(caught.value)
