"""`nightloom data`."""

from __future__ import annotations

from pathlib import Path

import pytest

EVENTS = "user,film,when,stars\nann,m1,1000000000,5\nann,m2,1000000100,3\nbob,m1,1000000200,4\n"
CONFIG = """
name: mine
data:
  events: ratings.csv
  columns:
    events: {user_id: user, item_id: film, timestamp: when, value: stars}
"""


@pytest.mark.parametrize("option", [(), ("--config",)], ids=["file", "option"])  # the option is the form of the version before
def test_data_describes_a_table_of_ones_own(nightloom, tmp_path: Path, option: tuple[str, ...]) -> None:
    (tmp_path / "ratings.csv").write_text(EVENTS)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    code, out, _ = nightloom("data", *option, tmp_path / "mine.yaml", "--root", tmp_path / "mlruns")
    assert code == 0
    assert "events: 3 rows" in out
    assert all(column in out for column in ("user_id", "item_id", "timestamp", "value"))
    assert str(next((tmp_path / "mlruns" / "snapshots" / "mine").glob("[0-9a-f]*"))) in out


@pytest.mark.parametrize(
    "arguments",
    [(), ("--preset", "movies-small", "a.yaml"), ("--preset", "no-such"), ("a.yaml",), ("--preset", "movies-small", "--set", "data.x=1")],
)
def test_data_refuses(nightloom, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, out, err = nightloom("data", *arguments, "--root", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("nightloom: ")
