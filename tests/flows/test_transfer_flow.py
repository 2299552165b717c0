"""From one shop to another, from the command line to the table, and once more from what is there."""

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
from safetensors.torch import load_file

from nightloom.experiments.transfer import ALONE, ARMS, METRIC, NETWORKS, PAIRS
from tests.tiny_models import WORDS, tiny_bert

REPOSITORY = Path(__file__).parents[2]
SOURCE, TARGET, SHARED = 60, 50, 10
"""Users of each shop; the last ones of the source are the first ones of the target."""
CONFIG = """
name: {name}
data: {{events: {name}.csv, items: {name}-items.csv}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: 3, patience: 3, learning_rate: 0.01, workers: 1}}
evaluation: {{protocols: [leave_one_out]}}
promotion: {{resamples: 200}}
"""


def write(folder: Path, name: str, first_user: int, users: int, model: Path, seed: int) -> None:
    """A shop whose users walk through its catalogue; both shops call their items i0, i1, ..., which are others in each."""
    random, items, steps = np.random.default_rng(seed), 30, 8
    user, step = np.repeat(np.arange(users), steps), np.tile(np.arange(steps), users)
    item = (np.repeat(random.integers(0, items, users), steps) + step) % items
    events = {
        "user_id": [f"u{first_user + one}" for one in user],
        "item_id": [f"i{one}" for one in item],
        "timestamp": 1_600_000_000 + step,
    }
    pd.DataFrame(events).to_csv(folder / f"{name}.csv", index=False)
    titles = [f"{WORDS[(one + seed) % len(WORDS)]} {WORDS[(3 * one + seed) % len(WORDS)]}" for one in range(items)]
    table = {"item_id": [f"i{one}" for one in range(items)], "title": titles, "colour": [WORDS[one % 3] for one in range(items)]}
    pd.DataFrame(table).to_csv(folder / f"{name}-items.csv", index=False)
    (folder / f"{name}.yaml").write_text(CONFIG.format(name=name, model=model))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    model = tiny_bert(folder / "bert")
    write(folder, "books", 0, SOURCE, model, 0)
    write(folder, "tools", SOURCE - SHARED, TARGET, model, 5)
    return folder


def transfer(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "PREFECT_HOME": str(home / "mlruns" / "prefect"),
        "NIGHTLOOM_ROOT": str(home / "mlruns"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "flows.transfer", "--source", "books.yaml", "--target", "tools.yaml", *arguments]
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=False)


COMMAND = ("--shares", "1", "0.2", "--table", "table.md")


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """The folder of a transfer that ran to its end."""
    done = transfer(home, *COMMAND)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (home / "table.md").read_text() in done.stdout
    (folder,) = (one for one in (home / "mlruns" / "nights" / "books-to-tools").iterdir() if not one.is_symlink())
    return folder


def test_no_user_and_no_id_of_one_shop_gets_into_the_other(home: Path, whole: Path) -> None:
    (source,) = (home / "mlruns" / "stages" / "books" / "transfer_source").glob("*/manifest.json")
    learned = set(pd.read_parquet(source.parent / "prepared" / "users.parquet")["user_id"])
    asked = set(pd.read_parquet(whole / "per_user.parquet")["user_id"])
    assert asked == {f"u{one}" for one in range(SOURCE - SHARED, SOURCE - SHARED + TARGET)}
    assert learned == {f"u{one}" for one in range(SOURCE)} - asked
    assert json.loads((whole / "transfer.json").read_text())["source"]["left_out"] == SHARED
    assert len(load_file(source.parent / "model" / "bundle" / "model.safetensors")["net.fusion.ids.weight"]) == 1  # the unknown id alone


def test_every_arm_learns_from_the_share_and_is_asked_about_the_same_users(home: Path, whole: Path) -> None:
    small, all_of_them = json.loads((whole / "transfer.json").read_text())["shares"]
    assert [one["learned"]["users"] for one in (small, all_of_them)] == [TARGET // 5, TARGET]
    rows = pd.read_parquet(whole / "per_user.parquet")
    for line in (small, all_of_them):
        mine = rows[rows["share"] == line["share"]]
        assert len(mine) == line["users"] == TARGET
        assert line[METRIC] == pytest.approx({name: mine[name].mean() for name in line[METRIC]})
        assert set(line[METRIC]) == {*ARMS, *(arm + ALONE for arm in NETWORKS)}
        assert set(line["differences"]) == {f"{a}/{b}" for a, b in PAIRS}
        by = line["differences"]["full/scratch"]
        assert by["difference"] == pytest.approx(line[METRIC]["full"] - line[METRIC]["scratch"])
        assert by["low"] <= by["difference"] <= by["high"]
    for arm in ("zero_shot", "text_neighbours"):  # they learn nothing in the target
        assert small[METRIC][arm] == all_of_them[METRIC][arm]
    manifests = (home / "mlruns" / "stages" / "books-to-tools" / "transfer").glob("*/manifest.json")
    parts = {
        json.loads(path.read_text())["figures"]["share"]: set(pd.read_parquet(path.parent / "prepared" / "users.parquet")["user_id"])
        for path in manifests
    }
    assert parts[0.2] < parts[1.0]
    assert len(parts[0.2]) == TARGET // 5


def test_table_plot_and_run_say_the_same(home: Path, whole: Path) -> None:
    shares, table = json.loads((whole / "transfer.json").read_text())["shares"], (home / "table.md").read_text()
    assert (whole / "transfer.md").read_text() == table
    for line in shares:
        (row,) = (one for one in table.splitlines() if one.startswith(f"| {line['learned']['users']} ("))
        assert all(f" {line[METRIC][arm]:.4f} " in row for arm in ARMS)
    assert (whole / "transfer.png").read_bytes().startswith(b"\x89PNG")
    with closing(sqlite3.connect(home / "mlruns" / "mlflow.db")) as database:
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
        kept = dict(database.execute("select key, value from latest_metrics where key like 'transfer/%'").fetchall())
        registered = database.execute("select count(*) from registered_models").fetchone()
    assert kept[f"transfer/full/{METRIC}"] == pytest.approx(shares[-1][METRIC]["full"])
    assert registered == (0,)


def test_a_second_run_finds_what_is_there(home: Path, whole: Path) -> None:
    again = transfer(home, *COMMAND)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("found finished") >= 7  # all but collecting
    last = max((home / "mlruns" / "nights" / "books-to-tools").iterdir())
    assert json.loads((last / "transfer.json").read_text()) == json.loads((whole / "transfer.json").read_text())


def test_what_can_not_be_run_is_refused(home: Path, whole: Path) -> None:
    refused = transfer(home, "--shares", "1.5")
    assert refused.returncode == 2
    assert "1.5 is not a share of the users" in refused.stderr


def test_with_shared_items_the_source_is_learned_from_too(home: Path) -> None:
    """The tools become the books' second shop: the same texts under other ids, and other people but for the last ten."""
    items = pd.read_csv(home / "books-items.csv")
    items.assign(item_id=items["item_id"].str.replace("i", "second")).to_csv(home / "second-items.csv", index=False)
    events = pd.read_csv(home / "tools.csv")
    events.assign(item_id=events["item_id"].str.replace("i", "second")).to_csv(home / "second.csv", index=False)
    (home / "second.yaml").write_text((home / "tools.yaml").read_text().replace("tools", "second"))
    named = ("--source-set", "name=first", "--target", "second.yaml")
    done = transfer(home, *named, "--shared-items", "--shares", "0.2", "--set", "training.epochs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    night = next(one for one in (home / "mlruns" / "nights" / "first-to-second").iterdir() if not one.is_symlink())
    said = json.loads((night / "transfer.json").read_text())
    (line,) = said["shares"]
    joined = line["learned"]["together"]
    assert joined["users"] == said["source"]["users"] == SOURCE - SHARED
    assert joined["events"] > 3 * line["learned"]["events"]
    assert f"learned from the {joined['events']:,} events" in (night / "transfer.md").read_text()
    (stage,) = (path.parent for path in (home / "mlruns" / "stages" / "first-to-second" / "transfer").glob("*/manifest.json"))
    runs = {arm: json.loads((stage / arm / "run.json").read_text()) for arm in ("adapter", "full", "scratch")}
    assert {arm: Path(run["prepared"]).name for arm, run in runs.items()} == {
        "adapter": "together",
        "full": "together",
        "scratch": "prepared",
    }
    assert not any(run["config"]["model"]["reranker"] for run in runs.values())
    asked = set(pd.read_parquet(night / "per_user.parquet")["user_id"])
    learned = pd.read_parquet(stage / "together" / "users.parquet")["user_id"]
    drawn = set(pd.read_parquet(stage / "prepared" / "users.parquet")["user_id"])
    assert set(learned) & asked == drawn  # nobody else who is asked was learned from
    assert set(learned) - asked == {f"u{one}" for one in range(SOURCE - SHARED)}
