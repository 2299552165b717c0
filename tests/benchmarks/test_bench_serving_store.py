"""The store's benchmark on one second: it runs, and its rows have figures."""

from __future__ import annotations

from pathlib import Path

from benchmarks.serving_store import HEAD, main


def test_a_short_run_writes_the_table(tmp_path: Path) -> None:
    page = tmp_path / "table.md"
    arguments = ["--clients", "1", "4", "--workers", "1", "2", "--seconds", "0.3", "--folder", str(tmp_path), "--table", str(page)]
    assert main(arguments) == 0
    text = page.read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == HEAD
    assert [row[:2] for row in rows[1:]] == [["1", "1"], ["4", "1"], ["4", "2"]]
    assert all(float(row[2].replace(",", "")) > 0 and float(row[4]) > 0 for row in rows[1:])
    assert "history of 33 events" in text
