"""A night of a past day: trained and evaluated on what was known then, and nothing that serves is changed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd

from tests.flows.test_nightly import home, night

__all__ = ["home"]

DAY = "2020-12-15"


def test_a_night_of_a_past_day_changes_nothing_that_serves(home: Path) -> None:
    done = night(home, "--config", "mine.yaml", "--as-of", DAY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Backfill of {DAY}: trained and evaluated as on that day; nothing was registered" in " ".join(done.stdout.split())
    assert f"compare mine/as-of-{DAY}-" in done.stdout
    nights = home / "mlruns" / "nights" / "mine"
    (folder,) = nights.iterdir()
    assert folder.name.startswith(f"as-of-{DAY}-"), "no night is the last one"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert (report["outcome"], report["as_of"], report["versions"]["champion"]) == ("backfill", DAY, None)

    times = pd.to_datetime(pd.read_csv(home / "ratings.csv")["timestamp"], unit="s", utc=True)
    known = times[times < pd.Timestamp(DAY, tz="UTC")]
    assert 0 < report["counts"]["events"] == len(known) < len(times)
    assert [pd.Timestamp(one) for one in report["period"]] == [known.min(), known.max()]
    assert report["metrics"]["nightloom"]["streaming"]["ndcg_at_10"] > 0

    with closing(sqlite3.connect(home / "mlruns" / "mlflow.db")) as found:
        runs = found.execute("select r.name, r.status from runs r join tags t using (run_uuid) where t.key = 'nightloom.as_of'").fetchall()
        (registered,) = found.execute("select count(*) from registered_models").fetchone()
    assert runs == [(f"backfill of {DAY}", "FINISHED")]
    assert registered == 0
