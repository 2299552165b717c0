"""Nights of a shop with pictures, from the command line to the registry."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prefect.logging import disable_run_logger

from nightloom.config import load_config
from nightloom.core.errors import ContractBroken
from nightloom.encoders.vectors import Vectors
from nightloom.runs.stages import Manifest, Night
from tasks.collect import collect
from tasks.load_pretrained import load_pretrained
from tasks.prepare import prepare
from tasks.report import unchanged
from tasks.validate import validate
from tests.pictures import COLOURS, paint
from tests.tiny_models import WORDS, tiny_bert, tiny_vit

REPOSITORY = Path(__file__).parents[2]
ITEMS, USERS = 80, 60
CONFIG = """
name: mine
data: {{events: events.csv, items: items.csv, features: {{title: text, photo: image}}}}
pretrained: {{model: {bert}, image_model: {vit}}}
model: {{dim: 16, blocks: 1, heads: 2, id_dropout: 0.3}}
training: {{epochs: 8, patience: 8, workers: 1, learning_rate: 0.01, refit: false}}
evaluation: {{baselines: [popularity]}}
explain: {{users: 1, max_events: 4, samples: 32}}
promotion: {{must_beat_baselines: false, resamples: 100}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People want one colour; two pictures are lost, and `new` and `old` have no title and no events, `new` has a picture."""
    folder = tmp_path_factory.mktemp("shop")
    colours, random = [*COLOURS], np.random.default_rng(0)
    photos = [f"photos/{item}.png" for item in range(ITEMS)]
    for item, photo in enumerate(photos):
        paint(folder / photo, colours[item % 4], seed=item)
    paint(folder / "photos" / "new.jpg", "blue", seed=99)
    (folder / photos[0]).write_bytes(b"<html>not found</html>")
    (folder / photos[1]).unlink()
    titles = [f"{WORDS[item % len(WORDS)]} {WORDS[3 * item % len(WORDS)]}" for item in range(ITEMS)]
    rows = [*zip(map(str, range(ITEMS)), titles, photos, strict=True), ("new", None, "photos/new.jpg"), ("old", None, None)]
    pd.DataFrame(rows, columns=["item_id", "title", "photo"]).to_csv(folder / "items.csv", index=False)
    events = [
        (f"u{user}", str(4 * random.integers(0, ITEMS // 4) + user % 4), 1_600_000_000 + 90_000 * step + int(random.integers(80_000)))
        for user in range(USERS)
        for step in range(9)
    ]
    pd.DataFrame(events, columns=["user_id", "item_id", "timestamp"]).to_csv(folder / "events.csv", index=False)
    (folder / "mine.yaml").write_text(CONFIG.format(bert=tiny_bert(folder / "bert"), vit=tiny_vit(folder / "vit")))
    return folder


def night(home: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "PREFECT_HOME": str(home / "mlruns" / "prefect"),
        "NIGHTLOOM_ROOT": str(home / "mlruns"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "flows.nightly", "--config", "mine.yaml"]
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=False)


def manifest(home: Path, stage: str) -> Manifest:
    return Manifest.load(home / "mlruns" / "nights" / "mine" / "latest" / "manifests" / f"{stage}.json")


@pytest.fixture(scope="module")
def first(home: Path) -> subprocess.CompletedProcess[str]:
    return night(home)


def test_a_night_sees_the_pictures_and_tells_what_is_lost(home: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0, first.stdout + first.stderr
    latest = home / "mlruns" / "nights" / "mine" / "latest"
    assert "79 pictures encoded, 0 from the cache, 3 of 82 items without picture, 2 pictures can not be read" in first.stdout
    lost = pd.read_csv(latest / "unreadable_images.csv", dtype=str)
    assert sorted(zip(lost["item_id"], lost["column"], lost["path"].map(os.path.basename), strict=True)) == [
        ("0", "photo", "0.png"),
        ("1", "photo", "1.png"),
    ]
    report = json.loads((latest / "report.json").read_text())
    assert report["gate"]["decision"] == "promote"
    assert report["images"]["unreadable"] == 2
    assert "2 pictures can not be read" in (latest / "report.html").read_text()


@pytest.mark.usefixtures("first")
def test_the_registered_model_recommends_an_item_of_which_there_is_a_picture_alone(home: Path, tmp_path: Path) -> None:
    blues = [str(item) for item in range(2, ITEMS, 4)]
    code = (
        "import mlflow, pandas as pd\n"
        f"mlflow.set_tracking_uri('sqlite:///{home}/mlruns/mlflow.db')\n"
        "model = mlflow.pyfunc.load_model('models:/nightloom-mine@champion')\n"
        f"print(model.predict(pd.DataFrame({{'history': [{blues[:4]}, ['4', '8', '12']]}}), params={{'k': 82}})['items'].tolist())\n"
    )
    env = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    for_blue, for_red = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    assert for_blue.index("new") < for_red.index("new")  # blue goes to those who want blue
    assert for_blue.index("new") < for_blue.index("old")  # of which nothing is known at all


@pytest.mark.usefixtures("first")
def test_too_many_lost_pictures_stop_the_night_and_the_list_of_them_stays(home: Path) -> None:
    tonight = Night.start(load_config(home / "mine.yaml", ["pretrained.max_bad_images=0.02"]), home / "mlruns")
    with disable_run_logger(), pytest.raises(ContractBroken) as refused:
        load_pretrained.fn(tonight, manifest(home, "prepare"))
    assert "items.photo: 2 of 81 pictures can not be read, the limit is 2.00%" in str(refused.value)
    kept = tonight.folder / "unreadable_images.csv"
    assert str(kept) in str(refused.value)
    assert len(pd.read_csv(kept)) == 2


@pytest.mark.usefixtures("first")
def test_a_changed_picture_is_a_reason_for_a_night_and_alone_is_seen_again(home: Path) -> None:
    tonight = Night.start(load_config(home / "mine.yaml"), home / "mlruns")
    with disable_run_logger():
        collected = collect.fn(tonight)
        assert unchanged(tonight, collected)
        paint(home / "photos" / "5.png", "yellow", seed=5)
        collected = collect.fn(tonight)
        assert unchanged(tonight, collected) is None
        prepared = prepare.fn(tonight, validate.fn(tonight, collected))
        made = load_pretrained.fn(tonight, prepared)
    before = manifest(home, "load_pretrained")
    assert before.key != made.key
    images = made.figures["images"]
    assert (images["encoded"], images["reused"], made.figures["encoded"]) == (1, 78, 0)
    one, other = Vectors.load(before.path), Vectors.load(made.path)
    assert (one.image != other.image).any(1).nonzero()[0].tolist() == [5]
