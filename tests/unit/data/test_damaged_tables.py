"""Tables with bytes changed, lost or added: they are read, or refused by name; nothing else is raised, and nothing is said beside."""

from __future__ import annotations

import contextlib
import gzip
import io
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.files import parts_at, read_part

ROWS = pd.DataFrame(
    {"user": [f"u{n}" for n in range(40)], "item": [f"i{n % 7}" for n in range(40)], "at": range(1_600_000_000, 1_600_000_040), "value": 3}
)
STRANGE = [b"\0", b'"', b",", b"\n", b"\r", b"\xff\xfe", b"\xe9", b"{", b"]", b"1e999", b"NaN", b"\xe2\x80\xa8", b";" * 20, b"null"]
Edit = tuple[str, float, int]
edits = st.lists(st.tuples(st.sampled_from(["set", "lose", "add", "cut"]), st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6)


def written(form: str) -> bytes:
    text, file = ROWS.to_csv(index=False).encode(), io.BytesIO()
    match form:
        case "events.csv":
            return text
        case "events.csv.gz":
            return gzip.compress(text)
        case "events.jsonl":
            return ROWS.to_json(orient="records", lines=True).encode()
        case "events.parquet":
            ROWS.to_parquet(file)
        case "events.feather":
            ROWS.to_feather(file)
        case "events.xlsx":
            ROWS.to_excel(file, index=False)
        case "events.zip":
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("events.csv", text)
    return file.getvalue()


FORMS = {
    form: written(form)
    for form in ("events.csv", "events.csv.gz", "events.jsonl", "events.parquet", "events.feather", "events.xlsx", "events.zip")
}


def damaged(content: bytes, changes: list[Edit]) -> bytes:
    found = bytearray(content)
    for kind, where, what in changes:
        at = int(where * len(found))
        if kind == "set":
            found[at : at + 1] = bytes([what])
        elif kind == "lose":
            del found[at : at + 1 + what % 50]
        elif kind == "add":
            found[at:at] = STRANGE[what % len(STRANGE)]
        else:
            del found[at:]
    return bytes(found)


def read(path: Path) -> int:
    data = DataConfig(events=str(path))
    return sum(
        len(table.frame) + len(table.unreadable) for table in (read_part(part, data, "events") for part in parts_at(str(path), "events"))
    )


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits)
def test_a_damaged_table_is_read_or_refused(form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], changes: list[Edit]) -> None:
    path = tmp_path / form
    path.write_bytes(damaged(FORMS[form], changes))
    with contextlib.suppress(InputError):
        read(path)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("form", FORMS)
def test_undamaged_they_are_one_table(form: str, tmp_path: Path) -> None:
    (tmp_path / form).write_bytes(FORMS[form])
    assert read(tmp_path / form) == len(ROWS)


def test_a_row_too_wide_in_another_encoding_is_told_by_its_byte(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = ROWS.to_csv(index=False).splitlines()
    lines[11] += ",caf\xe9"
    (tmp_path / "events.csv").write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(InputError, match=r"is not utf-8: byte 0xe9 at offset \d+ \(line 12\) cannot be decoded"):
        read(tmp_path / "events.csv")
    assert capfd.readouterr().err == ""
