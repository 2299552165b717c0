"""A table in one file: what was written comes back, and only whole files are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nightloom.core.columns import Columns
from nightloom.core.errors import InputError


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    written = {
        "item_id": ["a", "ü", "", "日本語"],
        "text": ["one", None, "", "two\nlines"],
        "price": [1.5, float("nan"), -0.0, 1e300],
        "tags": [["red", "blue"], None, [], np.array(["x"], dtype=object)],
        "count": [2**60 + 1, None, 0, -1],
        "unknown": [None] * 4,
    }
    Columns.write(written, tmp_path / "table.safetensors")
    read = Columns(tmp_path / "table.safetensors")
    assert read.names == tuple(written)
    assert "text" in read
    assert "title" not in read
    np.testing.assert_array_equal(read["price"], written["price"])
    for name in ("item_id", "text", "count", "unknown"):
        assert read[name] == written[name]
    assert read["tags"] == [["red", "blue"], None, [], ["x"]]
    with pytest.raises(KeyError):
        read["title"]


def test_a_table_without_rows(tmp_path: Path) -> None:
    assert Columns.write({"item_id": []}, tmp_path / "t.safetensors")["item_id"] == []


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.safetensors").write_bytes(b"not a table")
    for name in ("t.safetensors", "missing.safetensors"):
        with pytest.raises(InputError, match=f"{name}: not a readable table"):
            Columns(tmp_path / name)
