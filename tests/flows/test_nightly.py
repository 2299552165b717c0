"""A night of a user's own CSV files, with a YAML and no code, from the command line to the registry."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from nightloom.evaluation.statistics import compare
from tests.no_pickles import no_pickles
from tests.tiny_models import WORDS, tiny_bert

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
name: mine
data:
  events: ratings.csv
  items: movies.csv
  columns:
    events: {{user_id: userId, item_id: movieId, timestamp: timestamp, value: rating}}
    items: {{item_id: movieId, title: title, genres: genres}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: 2, workers: 1, precision: fp32}}
evaluation: {{protocols: [streaming, leave_one_out]}}
explain: {{users: 2, max_events: 5, samples: 64}}
promotion: {{must_beat_baselines: false, resamples: 200}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    rng = np.random.default_rng(0)
    users, items = 80, 40
    rows = []
    for user in range(users):
        start, at = 1_600_000_000 + int(rng.integers(0, 10_000_000)), int(rng.integers(0, items))
        for step in range(12):
            rows.append((f"u{user:02d}", f"{at:03d}", start + step * 200_000, int(rng.integers(1, 6))))
            at = (at + int(rng.integers(1, 4))) % items
    pd.DataFrame(rows, columns=["userId", "movieId", "timestamp", "rating"]).to_csv(folder / "ratings.csv", index=False)
    titles = [f"{WORDS[i % len(WORDS)]} {WORDS[(3 * i) % len(WORDS)]}" for i in range(items)]
    genres = ["drama|war" if i % 2 else "comedy" for i in range(items)]
    pd.DataFrame({"movieId": [f"{i:03d}" for i in range(items)], "title": titles, "genres": genres}).to_csv(
        folder / "movies.csv", index=False
    )
    (folder / "mine.yaml").write_text(CONFIG.format(model=tiny_bert(folder / "bert")))
    return folder


def environment(home: Path, *, own_server: bool = False) -> dict[str, str]:
    """With a Prefect server of its own, as on a user's machine, or with that of all flow tests."""
    shared = {name: value for name, value in os.environ.items() if not (own_server and name == "PREFECT_API_URL")}
    return shared | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "PREFECT_HOME": str(home / "mlruns" / "prefect"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",  # those of other kinds are shown then, which a command else keeps off
    }


def night(home: Path, *arguments: str, own_server: bool = False) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, "-m", "flows.nightly", *arguments], environment(home, own_server=own_server)
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=500, check=False)


def servers(home: Path) -> list[int]:
    """Processes that serve Prefect to the commands of this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            serves = "prefect.server.api.server:create_app" in process.cmdline()
            if serves and process.environ().get("PREFECT_HOME") == str(home / "mlruns" / "prefect"):
                found.append(process.pid)
    return found


@pytest.fixture(scope="module")
def first(home: Path) -> subprocess.CompletedProcess[str]:
    return night(home, "--config", "mine.yaml", own_server=True)


def test_the_first_night_promotes_and_reports(home: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0, first.stdout + first.stderr
    latest = home / "mlruns" / "nights" / "mine" / "latest"
    report = json.loads((latest / "report.json").read_text())
    wanted = {"name", "data_hash", "config_hash", "git", "stages", "metrics", "gate", "versions", "quarantined"}
    assert wanted <= set(report)
    assert report["gate"]["decision"] == "promote"
    assert report["versions"]["champion"] == "1"
    assert set(report["metrics"]) == {"nightloom", "popularity", "item_knn", "als", "graph"}
    assert all(set(found) == {"streaming", "leave_one_out"} for found in report["metrics"].values())
    assert {"seconds", "peak_mb", "status"} <= set(report["stages"]["fine_tune"])
    page = (latest / "report.html").read_text()
    links = re.findall(r'href="([^"#][^"]*)"', page)
    assert {"report.json", "per_user.parquet", "checks.json"} <= set(links)
    assert all(link.startswith("http") or (latest / link).exists() for link in links)
    assert report["sample_lists"]["users"]
    assert {check["passed"] for check in report["checks"] if check["severity"] == "critical"} == {True}
    for protocol in ("streaming", "leave_one_out"):
        fitted = report["training"][protocol]["reranker"]["queries"]
        assert not fitted or f"{fitted:,} validation queries that it was not fitted on" in page
    asked = report["asked"]["streaming"]
    assert f"{asked['test_queries']:,} events of {asked['test_users']:,} users were asked about" in page
    assert asked["test_queries"] > asked["test_users"]
    assert "nightloom, scorers kept up to date" in page
    assert report["live"]["streaming"]["metrics"]["ndcg_at_10"] > 0
    assert "Warning" not in first.stderr


@pytest.mark.usefixtures("first")
def test_nothing_that_a_night_leaves_is_a_pickle(home: Path) -> None:
    assert no_pickles(home / "mlruns")


@pytest.mark.usefixtures("first")
def test_anyone_can_recompute_the_metrics(home: Path) -> None:
    latest = home / "mlruns" / "nights" / "mine" / "latest"
    rows = pd.read_parquet(latest / "per_user.parquet")
    metrics = json.loads((latest / "report.json").read_text())["metrics"]
    for family, found in metrics.items():
        one = rows[(rows["family"] == family) & (rows["protocol"] == "leave_one_out")]
        rank = one["rank"].astype("float64")
        assert len(one) == one["user_id"].nunique()
        assert found["leave_one_out"]["hr_at_10"] == pytest.approx((rank <= 10).mean())
        assert found["leave_one_out"]["ndcg_at_10"] == pytest.approx((1 / np.log2(rank + 1)).where(rank <= 10, 0.0).mean())
        streamed = rows[(rows["family"] == family) & (rows["protocol"] == "streaming")]
        assert not streamed.duplicated(["user_id", "item_id", "time"]).any()
        assert found["streaming"]["hr_at_10"] == pytest.approx((streamed["rank"].astype("float64") <= 10).mean())


@pytest.mark.usefixtures("first")
def test_unchanged_data_is_a_short_night_that_says_why(home: Path) -> None:
    again = night(home, "--config", "mine.yaml")
    assert again.returncode == 0, again.stderr
    assert "nothing changed" in again.stdout
    assert len([path for path in (home / "mlruns" / "nights" / "mine").iterdir() if not path.is_symlink()]) == 1


@pytest.mark.usefixtures("first")
def test_the_registered_model_answers_a_stranger_in_a_clean_process(home: Path, tmp_path: Path) -> None:
    code = (
        "import sys, mlflow, pandas as pd\n"
        f"mlflow.set_tracking_uri('sqlite:///{home}/mlruns/mlflow.db')\n"
        "model = mlflow.pyfunc.load_model('models:/nightloom-mine@champion')\n"
        "answer = model.predict(pd.DataFrame({'history': [['003', '005', '006'], []]}), params={'k': 4})\n"
        "print(answer['items'].tolist())\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    items = json.loads(done.stdout.strip().splitlines()[-1].replace("'", '"'))
    assert [len(one) for one in items] == [4, 4]
    assert not {"003", "005", "006"} & set(items[0])


@pytest.mark.usefixtures("first")
def test_what_serves_is_measured_in_each_precision(home: Path) -> None:
    """The report says what was promoted; the command measures all precisions on the night's own snapshot."""
    report = json.loads((home / "mlruns" / "nights" / "mine" / "latest" / "report.json").read_text())
    parts = {part["part"]: part for part in report["serves"]}
    assert set(parts) == {"sequence model and item vectors", "text encoder"}
    small = parts["sequence model and item vectors"]
    assert (small["precision"], small["bytes"]) == ("single", small["single_bytes"])  # so small a model gains nothing
    assert parts["text encoder"]["near"] >= 0.9
    command = [sys.executable, "-m", "nightloom.cli", "compress"]
    done = subprocess.run(
        command, cwd=home, env=environment(home) | {"COLUMNS": "160"}, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row[1] for row in rows] == ["int8", "half, item vectors int8", "half", "single", "int8", "half", "single"]
    for part in ("sequence model and item vectors", "text encoder"):
        mine = [row for row in rows if row[0] == part]
        assert [row[6] for row in mine].count("yes") == 1
        assert mine[-1][3] == "100.0%"
    assert float(rows[0][3].rstrip("%")) < float(rows[2][3].rstrip("%")) < 100.0
    assert (rows[3][4], rows[3][6]) == ("0.00%", "yes")  # so small a model gains nothing
    wrong = subprocess.run(
        [*command, "mine", "--version", "99"], cwd=home, env=environment(home), capture_output=True, text=True, timeout=200, check=False
    )
    assert wrong.returncode == 2
    assert "nightloom-mine has no version 99" in wrong.stderr


def test_forced_night_sets_a_challenger_against_the_champion(home: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0
    forced = night(home, "--config", "mine.yaml", "--force")
    assert forced.returncode == 0, forced.stdout + forced.stderr
    report = json.loads((home / "mlruns" / "nights" / "mine" / "latest" / "report.json").read_text())
    assert report["gate"]["difference"] == pytest.approx(0, abs=1e-3)  # the same data and seed
    rows = pd.read_parquet(home / "mlruns" / "nights" / "mine" / "latest" / "per_user.parquet")
    mine, its = (rows[(rows["protocol"] == "streaming") & (rows["family"] == family)] for family in ("nightloom", "champion"))
    compared = compare(mine, its, resamples=200).set_index("metric").loc[report["gate"]["metric"]]
    assert report["gate"]["interval"] == pytest.approx([compared["low"], compared["high"]])
    assert report["versions"] == {"champion": "2", "challenger": "2", "previous": "1", "anchor": "1"}


OVERTAKEN = """
import sys
from flows.command import before_prefect, parser
sys.argv = ["nightly", "--config", "mine.yaml"]
given = before_prefect("__main__", parser("nightly", "One."))
import flows.nightly
from nightloom.promotion.ledger import Intent
from nightloom.promotion.registry import Registry
register, seen = Registry.register, []
def another_night_first(self, name, bundle, run, tags, *rest, **more):
    if not seen:
        seen.append(name)
        other = self.client.create_run(self.tracking.experiment(name)).info.run_id
        self.promote(register(self, name, bundle, other, {"nightloom.trained": "of another night"}, *rest, **more))
    return register(self, name, bundle, run, tags, *rest, **more)
Registry.register = another_night_first
given.force, given.as_of = True, None
sys.exit(flows.nightly.main(given))
"""


def test_a_night_that_another_overtook_is_judged_against_that_one(home: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0
    latest = home / "mlruns" / "nights" / "mine" / "latest"
    before = json.loads((latest / "report.json").read_text())["versions"]["champion"]
    command = [sys.executable, "-c", OVERTAKEN]
    night = subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=500, check=False)
    assert night.returncode == 0, night.stdout + night.stderr
    assert f"was judged against version {before}, and version {int(before) + 1} is champion now" in night.stdout
    report = json.loads((latest / "report.json").read_text())
    assert report["versions"]["champion"] == str(int(before) + 3)  # the number between was overtaken
    assert report["versions"]["previous"] == str(int(before) + 1)
    assert json.loads((latest / "manifests" / "evaluate.json").read_text())["figures"]["champion"] == str(int(before) + 1)


def test_a_rollback_holds_and_a_lost_registry_is_missed(home: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0
    latest = home / "mlruns" / "nights" / "mine" / "latest"
    rollback = [sys.executable, "-m", "nightloom.cli", "rollback", "mine", "--root", "mlruns"]
    back = subprocess.run(rollback, cwd=home, env=environment(home), capture_output=True, text=True, timeout=500, check=False)
    assert back.returncode == 0, back.stderr
    serves = re.findall(r"version (\d+) is the champion again", back.stdout)[0]
    held = night(home, "--config", "mine.yaml", "--force")
    assert held.returncode == 0, held.stdout + held.stderr
    report = json.loads((latest / "report.json").read_text())
    assert f"Held: nothing is promoted now, version {serves} stays champion" in held.stdout
    assert (report["outcome"], report["gate"]["decision"], report["versions"]["champion"]) == ("rejected", "reject", serves)
    assert "Promotion is held: on " in report["gate"]["reasons"][0] == report["gate"]["held"]
    assert "nothing changed" in night(home, "--config", "mine.yaml").stdout
    (home / "mlruns" / "mlflow.db").rename(home / "mlflow.db.away")
    lost = night(home, "--config", "mine.yaml")
    (home / "mlflow.db.away").replace(home / "mlruns" / "mlflow.db")
    assert lost.returncode == 0, lost.stdout + lost.stderr
    report = json.loads((latest / "report.json").read_text())
    assert any(f"Version {serves} was champion, and is not in " in reason for reason in report["gate"]["reasons"])
    assert report["versions"]["champion"] == "1"


KILLED_BEFORE_ITS_REPORT = """
import os, signal, sys
from flows.command import before_prefect, parser
sys.argv = ["nightly", "--config", "killed.yaml"]
given = before_prefect("__main__", parser("nightly", "One."))
import flows.nightly
flows.nightly.report = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
given.force, given.as_of = False, None
flows.nightly.main(given)
"""


def test_a_killed_night_started_again_ends_as_if_nothing_had_been(home: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0
    text = (home / "mine.yaml").read_text().replace("workers: 1", "workers: 2")  # which must make no difference either, in float32
    (home / "killed.yaml").write_text(text.replace("name: mine", "name: killed"))
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.nightly", "--config", "killed.yaml"],
        cwd=home,
        env=environment(home, own_server=True),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stage, end = home / "mlruns" / "stages" / "killed" / "fine_tune", time.monotonic() + 200
    while not any(stage.glob("*.partial/streaming/curves.jsonl")) and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    with (home / "halted.txt").open("wb") as said:  # no pipe: what the kill leaves behind would keep it open
        command = [sys.executable, "-c", KILLED_BEFORE_ITS_REPORT]
        halted = subprocess.run(
            command, cwd=home, env=environment(home, own_server=True), stdout=said, stderr=said, timeout=500, check=False
        )
    assert halted.returncode == -signal.SIGKILL, (home / "halted.txt").read_text()
    assert len(servers(home)) == 1  # that of the second, which ended that of the first
    again = night(home, "--config", "killed.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert not servers(home)
    nights = home / "mlruns" / "nights"
    whole_first = json.loads(min((nights / "mine").glob("*/report.json")).read_text())
    killed, whole = (json.loads((nights / name / "latest" / "report.json").read_text()) for name in ("killed", "mine"))
    statuses = {name: stage["status"] for name, stage in killed["stages"].items() if name != "collect"}
    assert statuses == dict.fromkeys(statuses, "reused") | {"promote": "done"}
    assert killed["versions"] == {
        "champion": "1",
        "challenger": "1",
        "previous": None,
        "anchor": "1",
    }  # once, though two nights registered it
    assert killed["gate"]["reasons"] == whole_first["gate"]["reasons"]
    for protocol in ("streaming", "leave_one_out"):
        assert killed["metrics"]["nightloom"][protocol] == pytest.approx(whole["metrics"]["nightloom"][protocol], abs=1e-6)


def test_refused_input_changes_nothing(home: Path) -> None:
    events = pd.read_csv(home / "ratings.csv", dtype=str)
    events.assign(movieId=lambda t: t["movieId"].where(t.index % 2 == 0, "unknown")).to_csv(home / "broken.csv", index=False)
    text = (home / "mine.yaml").read_text().replace("ratings.csv", "broken.csv").replace("name: mine", "name: broken")
    (home / "broken.yaml").write_text(text)
    refused = night(home, "--config", "broken.yaml")
    assert refused.returncode == 2, refused.stderr
    assert "events" in refused.stderr
    assert "item_id" in refused.stderr
    assert "Traceback" not in refused.stderr
    (folder,) = (home / "mlruns" / "nights" / "broken").iterdir()
    report = json.loads((folder / "report.json").read_text())
    assert report["outcome"] == "refused"
    assert report["refused"]["stage"] == "validate"
    assert report["quarantined"]["events"] == (len(events) // 2)
    assert str(folder / "quarantine") in refused.stderr
    assert "reason" in pd.read_csv(folder / "quarantine" / "events.csv")
    wrong = night(home, "--config", "mine.yaml", "--set", "training.epoch=1")
    assert wrong.returncode == 2
    assert "epochs" in wrong.stderr
