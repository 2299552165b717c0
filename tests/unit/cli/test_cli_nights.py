"""`nightloom check`, `night` and `deploy`: they become the flows of the checkout, with its exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import nightloom as package


def command(cwd: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "nightloom.cli", *arguments]
    return subprocess.run(line, cwd=cwd, env=os.environ | settings, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a small shop: 300 events, among them two without an item, and a config."""
    rng = np.random.default_rng(2)
    rows = [(f"u{user}", f"i{item}") for user in range(30) for item in rng.permutation(25)[:10]]
    frame = pd.DataFrame(rows, columns=["user", "item"])
    frame["at"] = 1_600_000_000 + 3600 * rng.permutation(len(frame))
    frame.loc[[3, 4], "item"] = None
    frame.to_csv(tmp_path / "orders.csv", index=False)
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ndata: {events: orders.csv, columns: {events: {user_id: user, item_id: item, timestamp: at}}}\n"
    )
    return tmp_path


def test_check_says_what_a_night_would_find_and_trains_nothing(mine: Path) -> None:
    done = command(mine, "check", "mine.yaml")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for part in (
        "The data are fit for a night",
        "events 298 2 0.67%",
        "events: 2 rows set aside: item_id is missing",
        "298 events of 30 users on 25 items",
        "Streaming queries: 209 train, 29 validation, 60 test (positive events); 27 test users, asked about 60 events",
    ):
        assert part in said, done.stdout
    assert done.stdout.rstrip().endswith("night mine.yaml")
    assert {path.name for path in (mine / "mlruns").iterdir()} <= {"snapshots", "checks", ".in-use"} | {"prefect"}
    assert "item_id is missing" in (mine / "mlruns" / "checks" / "mine" / "quarantine" / "events.csv").read_text()


def test_check_refuses_what_a_night_would_refuse(mine: Path) -> None:
    done = command(mine, "check", "mine.yaml", "--set", "validation.max_bad_share=0")
    assert done.returncode == 2
    assert "2 of 300 rows (0.67%) are bad, the limit is 0.00%" in done.stderr
    done = command(mine, "check", "mine.yaml", "--set", "prepare.seen_events=[interactoin]")
    assert done.returncode == 2
    assert "prepare.seen_events" in done.stdout + done.stderr
    assert "interactoin" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("night", "mine.yaml", "--set", "training.epoch=3"), "training.epoch: unknown key; did you mean 'epochs'?"),
        (("check", "other.yaml"), "other.yaml: the config cannot be read"),
        (("night",), "name either a YAML or --preset NAME"),
        (("night", "movies-small"), "Write --preset movies-small"),
        (("deploy", "mine.yaml", "--cron", "every night"), "--cron 'every night'"),
        (("deploy", "mine.yaml", "--timezone", "Mars/Olympus"), "there is no time zone 'Mars/Olympus'"),
    ],
)
def test_refusals(mine: Path, arguments: tuple[str, ...], said: str) -> None:
    done = command(mine, *arguments)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_server_that_does_not_answer_is_a_fault(mine: Path) -> None:
    done = command(mine, "deploy", "mine.yaml", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (done.returncode, "Prefect's server at http://127.0.0.1:9/api does not answer" in done.stderr) == (1, True)


def test_without_a_checkout_it_says_so(mine: Path) -> None:
    shutil.copytree(Path(package.__file__).parent, mine / "site" / "lib" / "nightloom", ignore=shutil.ignore_patterns("__pycache__"))
    done = command(mine, "night", "mine.yaml", PYTHONPATH=str(mine / "site" / "lib"))
    assert done.returncode == 2
    assert "flows/, tasks/ and expectations/, and these are not here" in done.stderr
