"""From the night to the day and back: what people do at a running service is in the next night, whose model then answers them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from nightloom.client import Client
from nightloom.data.tables.snapshot import read_snapshot
from tests.flows.test_nightly import environment
from tests.servers import free_port, until_it_answers
from tests.tiny_models import WORDS, tiny_bert
from tests.waiting import until

USERS, ITEMS, EVENTS = 40, 30, 10
TODAY = 1_700_000_000
"""When the day begins, in seconds since 1970: after all that the first night knows."""
FANS = [f"u{user:02d}" for user in range(8)]
CONFIG = """
name: mine
data:
  events: ratings.csv
  items: movies.csv
  columns:
    events: {{user_id: userId, item_id: movieId, timestamp: timestamp, value: rating, event: kind}}
    items: {{item_id: movieId, title: title, genres: genres}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: 2, workers: 1, precision: fp32}}
evaluation: {{protocols: [streaming], baselines: [popularity]}}
explain: {{users: 1, max_events: 3, samples: 16}}
promotion: {{must_beat_baselines: false, resamples: 100, margin: 0.9}}
"""


def night(home: Path) -> dict[str, Any]:
    """The report of a night."""
    command = [sys.executable, "-m", "flows.nightly", "--config", "mine.yaml"]
    done = subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((home / "mlruns" / "nights" / "mine" / "latest" / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A service on the champion of a first night."""
    home = tmp_path_factory.mktemp("day")
    random = np.random.default_rng(0)
    step = np.tile(np.arange(EVENTS), USERS)
    walk = (np.repeat(random.integers(0, ITEMS, USERS), EVENTS) + step * np.repeat(random.integers(1, 4, USERS), EVENTS)) % ITEMS
    events = {
        "userId": [f"u{user:02d}" for user in np.repeat(np.arange(USERS), EVENTS)],
        "movieId": [f"{item:03d}" for item in walk],
        "timestamp": TODAY - 10_000_000 + np.repeat(random.integers(0, 5_000_000, USERS), EVENTS) + step * 86_400,
        "rating": random.integers(3, 6, USERS * EVENTS),
        "kind": "rating",
    }
    pd.DataFrame(events).to_csv(home / "ratings.csv", index=False)
    titles = [f"{WORDS[item % len(WORDS)]} {WORDS[(3 * item) % len(WORDS)]}" for item in range(ITEMS)]
    genres = ["drama|war" if item % 2 else "comedy" for item in range(ITEMS)]
    ids = [f"{item:03d}" for item in range(ITEMS)]
    pd.DataFrame({"movieId": ids, "title": titles, "genres": genres}).to_csv(home / "movies.csv", index=False)
    (home / "mine.yaml").write_text(CONFIG.format(model=tiny_bert(home / "bert")))
    night(home)
    prepared = json.loads((home / "mlruns" / "serving" / "mine" / "prepared.json").read_text())
    assert (prepared["version"], Path(prepared["folder"]).is_dir()) == ("1", True), "promotion has it ready to serve"
    port, log = free_port(), home / "log"
    command = [sys.executable, "-m", "nightloom.cli", "serve", "mine", "--root", "mlruns", "--port", str(port), "--workers", "1"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=home, stdout=out, stderr=out, env=environment(home))
    try:
        until_it_answers(f"http://127.0.0.1:{port}/readyz", process, log)
        with Client(f"http://127.0.0.1:{port}") as client:
            yield SimpleNamespace(home=home, client=client, process=process, log=log)
    finally:
        process.terminate()
        process.wait(60)


def scores(client: Client, user: str) -> dict[str, float]:
    """A user's items, each with its score."""
    answer = client.recommend(user, k=ITEMS + 1, now=TODAY + 86_400, exclude_seen=False)
    return {item.item_id: item.score for item in answer.items}


def test_the_day_is_in_the_next_night_and_its_model_answers_otherwise(served: SimpleNamespace) -> None:
    client, home = served.client, served.home
    assert client.recommend(FANS[0]).version == "1"

    # By day: a new item, a few who like it and then the item 001, one of whom nobody knew, and what became of a recommendation.
    client.put_item("new", {"title": "The star of the night", "genres": ["comedy", "war"]})
    for number, user in enumerate([*FANS, "stranger"]):
        told = [(item, number * 60 + place) for place, item in enumerate(("new", "001"))]
        client.add_events(
            [
                {"event_id": f"{user} {item}", "user_id": user, "item_id": item, "event": "rating", "timestamp": TODAY + at, "value": 5}
                for item, at in told
            ]
        )
    answer = client.recommend("u20", k=5, now=TODAY + 3600)
    chosen = answer.items[2].item_id
    client.add_feedback("f1", answer.token, "rating", TODAY + 3700, item_id=chosen, value=5)
    client.add_feedback("f2", answer.token, "impression", TODAY + 3700, depth=5)
    told_why = client.recommend("u20", k=3, now=TODAY + 3600, explain=True)
    kinds = [item.reason.kind for item in told_why.items if item.reason]
    for number, (item, kind) in enumerate(zip(told_why.items, kinds, strict=True)):
        vote = "helpful" if number else "not_helpful"
        client.add_feedback(f"r{number}", told_why.token, vote, TODAY + 3700, item_id=item.item_id, reason=kind)
    people = [*FANS[:3], "stranger", "u20"]
    by_day = {user: scores(client, user) for user in people}
    assert all("new" in found for found in by_day.values())

    report = night(home)
    assert report["gate"]["decision"] == "promote"
    assert report["versions"] == {"champion": "2", "challenger": "2", "previous": "1", "anchor": "1"}
    (snapshot,) = [one for one in (home / "mlruns" / "snapshots" / "mine").iterdir() if report["data_hash"].startswith(one.name)]
    tables = read_snapshot(snapshot)
    told = tables.events[tables.events["timestamp"] >= pd.Timestamp(TODAY, unit="s", tz="UTC")]
    wanted = {*((user, item) for user in (*FANS, "stranger") for item in ("new", "001")), ("u20", chosen)}
    assert set(zip(told["user_id"], told["item_id"], strict=True)) == wanted
    assert len(told) == len(wanted)
    assert len(tables.events) == USERS * EVENTS + len(wanted)
    assert tables.items is not None
    assert tables.items.set_index("item_id").loc["new"].tolist() == ["The star of the night", "comedy|war"]

    votes = {kind: {"helpful": kinds[1:].count(kind), "not_helpful": kinds[:1].count(kind)} for kind in kinds}
    assert report["reason_votes"] == votes
    page = (home / "mlruns" / "nights" / "mine" / "latest" / "report.html").read_text()
    assert "What people say of reasons" in page
    tracked = mlflow.MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    figures = tracked.get_run(report["links"]["mlflow_run_id"]).data.metrics
    for kind, said in votes.items():
        assert {vote: figures[f"reasons/{vote}_{kind}"] for vote in said} == said
    card = tracked.get_model_version("nightloom-mine", "2").description
    assert "What people said of reasons so far" in card
    kept = home / "mlruns" / "nights" / "mine" / "latest"
    assert (kept / "model_card.md").read_text().startswith("# nightloom-mine\n")
    data = (kept / "data_card.md").read_text()
    assert f"Snapshot {report['data_hash'][:16]}" in data
    assert {path.name for path in (home / "mlruns" / "artifacts").rglob("data_card.md")} == {"data_card.md"}

    versions = list[str]()

    def taken_over() -> bool:
        versions.append(client.recommend(FANS[0]).version)
        return versions[-1] != "1"

    until(taken_over, 0.1, served.log.read_text)
    assert versions[-1] == "2"
    assert served.process.poll() is None
    by_next_day = {user: scores(client, user) for user in people}
    for user in people:
        assert set(by_next_day[user]) == set(by_day[user])
        assert max(abs(by_next_day[user][item] - by_day[user][item]) for item in by_day[user]) > 0.01, user
        assert list(by_next_day[user]) != list(by_day[user]), user
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlruns/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/nightloom-mine@champion")
    query = pd.DataFrame({"user_id": people, "request_time": TODAY + 86_400})
    registered = model.predict(query, params={"k": ITEMS + 1, "exclude_seen": False})
    for user, items, found in zip(people, registered["items"], registered["scores"], strict=True):
        assert dict(zip(items, found, strict=True)) == pytest.approx(by_next_day[user], abs=1e-4), user
    assert "new" in items
