"""What an operator and a data scientist see: both servers, the deployment, its form, a run from it, in a real browser.

With NIGHTLOOM_SCREENSHOTS=FOLDER the pages are kept as pictures.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from nightloom.config import RunConfig, load_preset
from tests.chromium import CHROMIUM, FLAGS
from tests.tiny_models import WORDS, tiny_bert
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
SILENT = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}


def test_the_deployment_runs_the_preset() -> None:
    said = yaml.safe_load((REPOSITORY / "deployment" / "prefect.yaml").read_text())
    (deployment,) = said["deployments"]
    assert RunConfig.model_validate(deployment["parameters"]["config"]) == load_preset("movies-small")


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        env = os.environ | {"PREFECT_PORT": port, "NIGHTLOOM_ROOT": str(tmp_path)}
        done = subprocess.run(["bash", "deployment/ui.sh", "unused"], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"port {port} is in use" in done.stderr
    assert "PREFECT_PORT=" in done.stderr


@dataclass(frozen=True)
class Servers:
    """Addresses of both servers, and the folder they work in."""

    prefect: str
    mlflow: str
    root: Path

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask Prefect's API."""
        return self.call("POST", path, body)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send something to Prefect's API; gives its answer, None where that is empty.

        While its database is locked the server answers 503, and like Prefect's own client one asks again.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.prefect}/api{path}", data, {"content-type": "application/json"}, method=method)
        for attempt in range(10):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == 9:
                    raise
                time.sleep(2)
        return None

    def get(self, path: str) -> Any:
        """Read from Prefect's API."""
        return self.call("GET", path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(what: Any, seconds: float, process: subprocess.Popen[bytes], log: Path) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            if found := what():
                return found
        except OSError:
            pass
        time.sleep(1)
    raise AssertionError(f"not within {seconds} s; the log:\n{log.read_text()}")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    root = tmp_path_factory.mktemp("ui")
    found = Servers(f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}", root)
    env = (
        os.environ
        | SILENT
        | {
            "NIGHTLOOM_ROOT": str(root),
            "PREFECT_PORT": found.prefect.rpartition(":")[2],
            "MLFLOW_PORT": found.mlflow.rpartition(":")[2],
        }
    )
    log = root / "ui.log"
    process = ui(log, env)
    try:
        wait(lambda: "Worker" in log.read_text(), 300, process, log)
        yield found
    finally:
        process.terminate()
        ended(process, root)


def ui(log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start what `make ui` starts."""
    with log.open("wb") as output:
        return subprocess.Popen(
            ["bash", "deployment/ui.sh", str(Path(sys.executable).parent)],
            cwd=REPOSITORY,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as from a terminal
        )


def ended(process: subprocess.Popen[bytes], root: Path) -> int:
    """Wait until the script has ended, and see that nothing it started is left; gives its exit code."""
    try:
        code = process.wait(60)
        left = started(root)
        assert not left, [one.cmdline() for one in left]
        return code
    finally:
        for one in started(root):
            one.kill()


def started(root: Path) -> list[psutil.Process]:
    """Processes that work for an mlruns folder."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.environ().get("NIGHTLOOM_ROOT") == str(root) and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


class Health(BaseHTTPRequestHandler):
    """An MLflow that runs already, as far as its health tells."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_an_mlflow_that_runs_already_is_used_and_ctrl_c_ends_all(tmp_path: Path) -> None:
    other = HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{other.server_port}"
    more = {"NIGHTLOOM_ROOT": str(tmp_path), "PREFECT_PORT": str(free_port()), "NIGHTLOOM_MLFLOW_URI": address}
    process, log = ui(tmp_path / "ui.log", os.environ | SILENT | more), tmp_path / "ui.log"
    try:
        wait(lambda: "Form " in log.read_text(), 300, process, log)
        assert f"MLflow   {address}" in log.read_text()
        assert not [one for one in started(tmp_path) if "mlflow" in " ".join(one.cmdline())]
        process.send_signal(signal.SIGINT)
    finally:
        code = ended(process, tmp_path)
        other.shutdown()
    assert code == 130


@pytest.fixture(scope="module")
def page(servers: Servers) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser.new_page(viewport={"width": 1400, "height": 950})
        browser.close()


def look(page: Any, address: str, *texts: str, name: str) -> None:
    """Open an address and wait until it shows some texts."""
    page.goto(address)
    for text in texts:
        page.get_by_text(text).first.wait_for(timeout=60_000)
    if folder := os.environ.get("NIGHTLOOM_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        if page.get_by_text("MLflow Assistant").count():  # beside the page, of which it takes a third
            page.locator("button[aria-label=Close]").last.click()
            page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png")


def deployment(servers: Servers) -> dict[str, Any]:
    (found,) = servers.post("/deployments/filter", {})
    assert isinstance(found, dict)
    return found


def test_the_deployment_is_nightly_one_at_a_time(servers: Servers) -> None:
    found = deployment(servers)
    schedule = found["schedules"][0]["schedule"]
    assert (schedule["cron"], bool(schedule["timezone"])) == ("0 2 * * *", True)
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert found["global_concurrency_limit"]["limit"] == 1


def test_the_form_has_what_one_changes_on_top(servers: Servers, page: Any) -> None:
    address = f"{servers.prefect}/deployments/deployment/{deployment(servers)['id']}/run"
    look(page, address, "Gate", "Peak learning rate of the recommender.", "Pretrained models", name="prefect-form")
    labels = [label.removesuffix(" (Optional)") for label in page.locator("form label").all_inner_texts()]
    named = [label for label in labels if label in ("force", "Name", "Mode", "Epochs", "Data", "Model", "Folds", "Clicks")]
    assert named == ["force", "Name", "Mode", "Epochs", "Model", "Data"]
    fields = "form input:not([type=hidden]), form textarea, form button[role=combobox], form [role=switch], form .cm-editor"
    assert page.locator(fields).count() <= 25
    assert page.evaluate("Math.max(...[...document.querySelectorAll('*')].map(one => one.scrollHeight))") < 4500


def test_what_the_form_does_not_show_stays(servers: Servers, page: Any) -> None:
    """Keys without a field, and sections that nights do not read, are sent as the deployment has them."""
    found = deployment(servers)
    given = found["parameters"]["config"]
    changed = given | {"training": given["training"] | {"batch_users": 16}, "promotion": {"resamples": 300}, "clicks": {"epochs": 3}}
    path = f"/deployments/{found['id']}"
    servers.call("PATCH", "/work_pools/local", {"is_paused": True})
    servers.call("PATCH", path, {"parameters": {"config": changed}})
    try:
        page.goto(f"{servers.prefect}/deployments/deployment/{found['id']}/run")
        page.get_by_text("Pretrained models").first.wait_for(timeout=60_000)
        page.wait_for_load_state("networkidle", timeout=60_000)
        page.wait_for_timeout(2000)
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url("**/deployment/*tab=Runs", timeout=120_000)
        waiting = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED", "PENDING"]}}}}
        (run,) = [one for one in servers.post("/flow_runs/filter", waiting) if not one["auto_scheduled"]]
        servers.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
    finally:
        servers.call("PATCH", path, {"parameters": found["parameters"]})
        servers.call("PATCH", "/work_pools/local", {"is_paused": False})
    assert RunConfig.model_validate(run["parameters"]["config"]) == RunConfig.model_validate(changed)


def test_descriptions_hold_no_html(servers: Servers) -> None:
    """Prefect's form takes `<...>` in a description for HTML and shows nothing."""
    assert "<" not in json.dumps(deployment(servers)["parameter_openapi_schema"])


def test_a_quick_run_needs_nothing(servers: Servers) -> None:
    assert not deployment(servers)["parameter_openapi_schema"].get("required")


@pytest.fixture(scope="module")
def config(servers: Servers) -> dict[str, Any]:
    """A config on small tables."""
    rng = np.random.default_rng(0)
    users, items = 60, 30
    at = np.sort(rng.integers(1_600_000_000, 1_610_000_000, (users, 10)), axis=1)
    events = pd.DataFrame(
        {
            "user_id": np.repeat([f"u{user}" for user in range(users)], 10),
            "item_id": np.concatenate([rng.permutation(items)[:10] for _ in range(users)]).astype(str),
            "timestamp": at.ravel(),
        }
    )
    events.to_csv(servers.root / "events.csv", index=False)
    titles = pd.DataFrame({"item_id": [str(item) for item in range(items)], "title": [WORDS[item % len(WORDS)] for item in range(items)]})
    titles.to_csv(servers.root / "items.csv", index=False)
    return {
        "name": "small",
        "data": {"events": str(servers.root / "events.csv"), "items": str(servers.root / "items.csv"), "features": {"title": "text"}},
        "pretrained": {"model": str(tiny_bert(servers.root / "bert"))},
        "model": {"dim": 16, "blocks": 1},
        "training": {"epochs": 2},
        "explain": {"users": 2, "samples": 64},
        "promotion": {"must_beat_baselines": False, "resamples": 200},
    }


def start(servers: Servers, config: dict[str, Any], *, force: bool = False) -> str:
    """Start a run as the form does; gives its id."""
    run = servers.post(f"/deployments/{deployment(servers)['id']}/create_flow_run", {"parameters": {"config": config, "force": force}})
    return str(run["id"])


def end_of(servers: Servers, run: str) -> dict[str, Any]:
    """The run once it has ended, however it did."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        (now,) = servers.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        if now["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            assert isinstance(now, dict)
            return now
        time.sleep(1)
    raise AssertionError("the run does not end")


@pytest.fixture(scope="module")
def finished(servers: Servers, config: dict[str, Any]) -> dict[str, Any]:
    """A whole run."""
    now = end_of(servers, start(servers, config))
    logs = servers.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [now["id"]]}}})
    assert now["state"]["type"] == "COMPLETED", "\n".join(line["message"] for line in logs)
    return now


def test_a_run_from_the_form_tells_what_it_does(servers: Servers, page: Any, finished: dict[str, Any]) -> None:
    texts = ("Completed", "fine_tune: 2 workers", "promote: promote (enabled)")
    look(page, f"{servers.prefect}/runs/flow-run/{finished['id']}", *texts, name="prefect-run")


def test_a_run_is_named_and_tagged(servers: Servers, finished: dict[str, Any]) -> None:
    now = servers.get(f"/flow_runs/{finished['id']}")
    assert re.fullmatch(r"small \d{8}-\d{6}", now["name"])
    assert set(now["tags"]) == {"preset:movies-small", "name:small", "outcome:promoted"}


def test_the_outcome_is_in_artifacts_with_links_to_mlflow(servers: Servers, page: Any, finished: dict[str, Any]) -> None:
    made = servers.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [finished["id"]]}}})
    by_key = {one["key"]: one for one in made}
    assert set(by_key) == {"night-small", "night-small-models", "mlflow-url-small", "mlflow-runs-small", "training-small-streaming"}
    assert by_key["night-small"]["description"].startswith("Promoted: version 1 is the first champion")
    assert (by_key["training-small-streaming"]["type"], float(by_key["training-small-streaming"]["data"])) == ("progress", 100.0)
    assert {row["model"] for row in json.loads(by_key["night-small-models"]["data"])} >= {"nightloom", "als"}
    assert servers.mlflow in by_key["mlflow-url-small"]["data"]
    assert "runs?workflowType=machine_learning" in by_key["mlflow-runs-small"]["data"]
    look(page, f"{servers.prefect}/artifacts/artifact/{by_key['night-small']['id']}", "Promoted", "popularity", name="prefect-report")


def test_a_night_without_change_says_so(servers: Servers, config: dict[str, Any], finished: dict[str, Any]) -> None:
    again = end_of(servers, start(servers, config))
    assert (again["state"]["type"], again["state"]["name"]) == ("COMPLETED", "Unchanged")
    assert again["state"]["message"].startswith("Nothing to do: data ")
    assert "outcome:unchanged" in again["tags"]


def test_mlflow_lays_the_families_side_by_side(servers: Servers, page: Any, finished: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=servers.mlflow)
    experiment = client.get_experiment_by_name("nightloom-small")
    assert experiment is not None
    every = client.search_runs([experiment.experiment_id])
    runs = {run.info.run_name: run for run in every if "mlflow.parentRunId" in run.data.tags}
    assert set(runs) == {"nightloom", "popularity", "item_knn", "als", "graph"}
    named = {family: {name for name in run.data.metrics if "/epoch/" not in name} for family, run in runs.items()}
    live = {name for name in named["nightloom"] if name.startswith("streaming_live/")}
    assert "streaming_live/ndcg_at_10" in live
    attacked = {"streaming/membership_events", "streaming/membership_users"}  # of the model that is registered, alone
    assert attacked <= named["nightloom"]
    assert {family: names - live - attacked for family, names in named.items()} == dict.fromkeys(named, named["als"])
    (parent,) = [run for run in every if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.tags["nightloom.outcome"] == "promoted"
    assert parent.data.tags["mlflow.note.content"].startswith("**Promoted: version 1")
    # The gate adds up by user, evaluation by query: the same mean but for the last bit.
    assert parent.data.metrics["gate/challenger"] == pytest.approx(parent.data.metrics["streaming/ndcg_at_10"], rel=1e-14)
    look(
        page, f"{servers.mlflow}/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning", "night 2", name="mlflow-runs"
    )
    ids = json.dumps([run.info.run_id for run in runs.values()])
    address = f"{servers.mlflow}/#/compare-runs?runs={urllib.parse.quote(ids)}&experiments=%5B%22{experiment.experiment_id}%22%5D"
    look(page, address, "item_knn", "streaming/gini_at_10", name="mlflow-compare")
    wanted, end = page.get_by_text("streaming/ndcg_at_10", exact=True), time.monotonic() + 60
    while not wanted.count() and time.monotonic() < end:  # MLflow draws the rows of a long table as they are scrolled to
        page.get_by_text(re.compile("^streaming/")).last.scroll_into_view_if_needed()
        page.wait_for_timeout(200)
    wanted.first.scroll_into_view_if_needed()
    assert wanted.first.is_visible()
    look(page, f"{servers.mlflow}/#/models/nightloom-small", "champion", name="mlflow-model")


@pytest.mark.usefixtures("finished")
def test_a_cancelled_run_leaves_no_worker_behind(servers: Servers, config: dict[str, Any]) -> None:
    run = start(servers, config | {"name": "cancelled", "training": {"epochs": 500, "patience": 500}})
    curves = servers.root / "stages" / "cancelled" / "fine_tune"
    until(lambda: any(curves.glob("*.partial/streaming/curves.jsonl")), 0.2)
    assert workers(servers.root)
    servers.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert end_of(servers, run)["state"]["type"] == "CANCELLED"
    until(lambda: not workers(servers.root), 0.2)


def workers(root: Path) -> list[int]:
    """Training processes that work under a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "nightloom.training" in words and any(word.startswith(str(root)) for word in words):
            found.append(process.pid)
    return found
