"""Nights of a user's own CSV files lived again, from the command line to the table, and cut off on the way."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.core.errors import InputError
from nightloom.experiments.replay import ARMS, METRIC, moments
from tests.tiny_models import WORDS, tiny_bert

REPOSITORY = Path(__file__).parents[2]
NIGHTS, STEP_DAYS, DAY, BEGIN = 3, 4, 86_400, 1_600_041_600
"""`BEGIN` is a midnight, UTC."""
CONFIG = """
name: mine
data: {{events: events.csv, items: items.csv}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: 6, patience: 6, warm_epochs: 2, learning_rate: 0.01, workers: 1}}
promotion: {{resamples: 200}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty days of users who walk through a small catalogue; the last items come up in the last nights alone."""
    folder = tmp_path_factory.mktemp("replay")
    random, users, items, steps = np.random.default_rng(0), 60, 30, 12
    user, step = np.repeat(np.arange(users), steps), np.tile(np.arange(steps), users)
    day = np.repeat(random.uniform(0, 28, users), steps) + step
    late = (day > 40 - NIGHTS * STEP_DAYS + STEP_DAYS).astype(int)
    item = (np.repeat(random.integers(0, items, users), steps) + step) % (items - 3) + 3 * late
    events = {"user_id": [f"u{one}" for one in user], "item_id": [f"i{one}" for one in item], "timestamp": BEGIN + (day * DAY).astype(int)}
    table = pd.DataFrame(events)
    table.loc[table["timestamp"].idxmax(), "timestamp"] = BEGIN + 40 * DAY - 1  # so that the nights' dates are known
    table.to_csv(folder / "events.csv", index=False)
    titles = [f"{WORDS[one % len(WORDS)]} {WORDS[3 * one % len(WORDS)]}" for one in range(items)]
    pd.DataFrame({"item_id": [f"i{one}" for one in range(items)], "title": titles}).to_csv(folder / "items.csv", index=False)
    (folder / "mine.yaml").write_text(CONFIG.format(model=tiny_bert(folder / "bert")))
    return folder


def replay(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "PREFECT_HOME": str(home / "mlruns" / "prefect"),
        "NIGHTLOOM_ROOT": str(home / "mlruns"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "flows.replay", "--config", "mine.yaml", *arguments]
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=1100, check=False)


COMMAND = ("--nights", str(NIGHTS), "--step-days", str(STEP_DAYS), "--at-once", "2", "--table", "table.md")


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """The folder of a replay that ran to its end."""
    done = replay(home, *COMMAND)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (home / "table.md").read_text() in done.stdout
    (folder,) = (one for one in (home / "mlruns" / "nights" / "mine-replay").iterdir() if not one.is_symlink())
    return folder


def lived(home: Path) -> dict[str, Path]:
    """Night -> its folder."""
    folders = (home / "mlruns" / "stages" / "mine-replay" / "replay").glob("*/manifest.json")
    return dict(sorted((json.loads(path.read_text())["figures"]["day"], path.parent) for path in folders))


def bundles(home: Path, night: Path) -> list[Path]:
    """What a night has trained: from scratch and, but for the first night, warm."""
    key = json.loads((night / "manifest.json").read_text())["inputs"]["replay_scratch"]
    return [home / "mlruns" / "stages" / "mine-replay" / "replay_scratch" / key / "scratch" / "bundle", *night.glob("warm/bundle")]


def test_every_night_is_lived_in_every_way(home: Path, whole: Path) -> None:
    found = json.loads((whole / "replay.json").read_text())
    first, second, third = found["nights"]
    begin = pd.Timestamp(BEGIN, unit="s")
    days = [str((begin + pd.Timedelta(days=40 - STEP_DAYS * back)).date()) for back in (3, 2, 1)]
    assert [night["day"] for night in found["nights"]] == days == list(lived(home))
    assert len(set(first[METRIC].values())) == 1  # all begin as one model
    assert first["epochs"]["warm"] == first["epochs"]["scratch"]
    for night in (second, third):
        assert set(night[METRIC]) == set(ARMS)
        assert night["cold_because"] is None
        assert 0 < night["epochs"]["warm"] <= 4  # two to search, two to refit
        assert night["epochs"]["warm"] < night["epochs"]["scratch"]
        assert night["cpu_seconds"]["warm"] > 0
    assert third[METRIC]["frozen"] != third[METRIC]["scratch"]


def test_a_night_is_judged_on_its_own_period_and_knows_nothing_of_it(home: Path, whole: Path) -> None:
    events = pd.read_csv(home / "events.csv")
    assert len(lived(home)) == NIGHTS
    for day, folder in lived(home).items():
        at = int(pd.Timestamp(day).timestamp())
        asked = events[(events["timestamp"] >= at) & (events["timestamp"] < at + STEP_DAYS * DAY)]
        rows = pd.read_parquet(folder / "per_user.parquet")
        assert list(rows) == ["user_id", *ARMS]
        assert set(rows["user_id"]) <= set(asked["user_id"])
        assert len(bundles(home, folder)) == (1 if day == min(lived(home)) else 2)
        for bundle in bundles(home, folder):
            assert json.loads((bundle / "meta.json").read_text())["trained_until"]["temporal"] < at
        (line,) = (one for one in json.loads((whole / "replay.json").read_text())["nights"] if one["day"] == day)
        assert line[METRIC] == pytest.approx({arm: rows[arm].mean() for arm in ARMS})


def test_table_plot_and_run_say_the_same(home: Path, whole: Path) -> None:
    found, table = json.loads((whole / "replay.json").read_text()), (home / "table.md").read_text()
    assert (whole / "replay.md").read_text() == table
    for night in found["nights"]:
        (row,) = (line for line in table.splitlines() if line.startswith(f"| {night['day']} |"))
        assert all(f" {night[METRIC][arm]:.4f} " in row for arm in ARMS)
    pooled = pd.concat([pd.read_parquet(folder / "per_user.parquet") for folder in list(lived(home).values())[1:]])
    for name, one in found["ratios"].items():
        arm, base = name.split("/")
        assert one["value"] == pytest.approx(pooled[arm].mean() / pooled[base].mean())
        assert one["low"] <= one["value"] <= one["high"]
        assert f"- {name}: {one['value']:.3f}" in table
    assert found["users"] == len(pooled)
    assert f"Over {NIGHTS - 1} nights after the first and {len(pooled)} questions" in table
    assert (whole / "replay.png").read_bytes().startswith(b"\x89PNG")
    with closing(sqlite3.connect(home / "mlruns" / "mlflow.db")) as database:
        runs = database.execute("select status from runs").fetchall()
        kept = dict(database.execute("select key, value from latest_metrics where key like 'replay/%'").fetchall())
        steps = database.execute("select value from metrics where key = ? order by step", (f"replay/warm/{METRIC}",)).fetchall()
        registered = database.execute("select count(*) from registered_models").fetchone()
    assert runs == [("FINISHED",)]
    assert kept["replay/warm_over_scratch"] == pytest.approx(found["ratios"]["warm/scratch"]["value"])
    assert kept["replay/warm_cpu_share"] == pytest.approx(found["cpu_share"])
    assert [value for (value,) in steps] == pytest.approx([night[METRIC]["warm"] for night in found["nights"]])
    assert registered == (0,)
    assert {path.name for path in (home / "mlruns").rglob("artifacts/replay.*")} == {"replay.json", "replay.md", "replay.png"}


def test_a_replay_that_was_cut_off_does_only_what_is_left(home: Path, whole: Path) -> None:
    """Two folders are put back to where a kill between a training and its end leaves them: a night from scratch, and a warm one."""
    night = list(lived(home).values())[1]
    scratch = bundles(home, night)[0].parents[1]
    rest = (night / "manifest.json", night / "per_user.parquet", scratch / "manifest.json")
    for path in rest:
        path.unlink()
    for folder in (night, scratch):
        folder.rename(folder.with_name(f"{folder.name}.partial"))
    stages = home / "mlruns" / "stages" / "mine-replay"

    def written() -> dict[Path, int]:
        made = (path for path in stages.rglob("*") if path.is_file() and path.suffix != ".lock" and path not in rest)
        return {Path(str(path).replace(".partial", "")): path.stat().st_mtime_ns for path in made}

    before = written()
    again = replay(home, *COMMAND)
    assert again.returncode == 0, again.stdout + again.stderr
    after = written()
    assert {path.parent.name for path in after if after[path] != before.get(path)} <= {"pretrained"}  # read from the cache of texts
    last = max(one for one in (home / "mlruns" / "nights" / "mine-replay").iterdir() if not one.is_symlink())
    assert last != whole
    assert json.loads((last / "replay.json").read_text()) == json.loads((whole / "replay.json").read_text())


def test_nights_that_the_data_do_not_hold_are_refused(home: Path) -> None:
    events = pd.read_csv(home / "events.csv")
    events["timestamp"] = pd.to_datetime(events["timestamp"], unit="s")
    with pytest.raises(InputError, match="400 nights 1 days apart do not fit"):
        moments(events, 400, 1.0)
    for nights, step_days, told in ((0, 1.0, "--nights 0"), (3, 0.0, "--step-days 0"), (3, float("nan"), "--step-days nan")):
        with pytest.raises(InputError, match=told):
            moments(events, nights, step_days)
    with pytest.raises(InputError, match="not a date"):
        moments(events, 3, 1.0, "yesterday")
    with pytest.raises(InputError, match="needs timestamps"):
        moments(events.drop(columns="timestamp"), 3, 1.0)
