"""A canary's id is in no file after it was forgotten, the same CSV brings nothing back, and the next night replaces the version."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.serving.store import Event, Store
from tests.flows.test_nightly import CONFIG, environment, night
from tests.tiny_models import WORDS, tiny_bert
from tests.unit.privacy.test_forget import holders

CANARY = "canary-zeta-77"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night over people one of whom is the canary, with rows that can not be read and one that the contract sets aside."""
    folder = tmp_path_factory.mktemp("canary")
    rows, random = [], np.random.default_rng(0)
    for user in range(60):
        name = CANARY if user == 7 else f"u{user:02d}"
        start = 1_609_000_000 if user == 7 else 1_600_000_000 + 97_000 * user  # the canary is among those who are asked about
        items = int(random.integers(0, 40)) + np.cumsum(random.integers(1, 4, 12))
        rows += [(name, f"{item % 40:03d}", start + step * 200_000, 1 + step % 5) for step, item in enumerate(items.tolist())]
    rows += [(CANARY, "", 1_609_000_500, 3), (CANARY, "003", "not a time", 3)]
    pd.DataFrame(rows, columns=["userId", "movieId", "timestamp", "rating"]).to_csv(folder / "ratings.csv", index=False)
    titles = [f"{WORDS[i % len(WORDS)]} {WORDS[(3 * i) % len(WORDS)]}" for i in range(40)]
    films = {"movieId": [f"{i:03d}" for i in range(40)], "title": titles, "genres": ["drama", "comedy"] * 20}
    pd.DataFrame(films).to_csv(folder / "movies.csv", index=False)
    config = CONFIG.format(model=tiny_bert(folder / "bert")).replace("[streaming, leave_one_out]", "[streaming]")
    (folder / "mine.yaml").write_text(config.replace("users: 2", "users: 60"))
    store = Store.open(folder / "mlruns" / "store" / "mine.db")
    store.add_events([Event("e1", CANARY, "001", "rating", 1_609_900_000_000, 4.0)])
    store.close()
    first = night(folder, "--config", "mine.yaml")
    assert first.returncode == 0, first.stdout + first.stderr
    return folder


def test_the_canary_leaves_every_file_and_does_not_come_back(home: Path) -> None:
    root = home / "mlruns"
    before = holders(root, CANARY)
    assert {one.split("/")[0] for one in before} >= {"artifacts", "nights", "snapshots", "stages", "store"}
    command = [sys.executable, "-m", "nightloom.cli", "forget", "mine", CANARY, "--root", "mlruns", "--yes"]
    done = subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nightloom-mine 1" in done.stdout
    assert CANARY not in done.stdout
    assert holders(root, CANARY) == []

    second = night(home, "--config", "mine.yaml")
    assert second.returncode == 0, second.stdout + second.stderr
    assert holders(root, CANARY) == []
    report = json.loads((root / "nights" / "mine" / "latest" / "report.json").read_text())
    assert report["versions"]["champion"] == "2"
    assert "learned from somebody who was forgotten since" in " ".join(report["gate"]["reasons"])
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        aliases = dict(database.execute("select alias, version from registered_model_aliases").fetchall())
    assert set(map(str, aliases.values())) == {"2"}
