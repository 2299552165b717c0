"""The deployment: made on a server, updated under the same name, and no tracked file is edited."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate

from flows.deploy import home_in
from nightloom.core.errors import InputError

ROOT = Path(__file__).parents[2]


def deploy(folder: Path, *arguments: str) -> str:
    line = [sys.executable, "-m", "nightloom.cli", "deploy", "mine.yaml", *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_config_of_ones_own_is_deployed_and_updated(tmp_path: Path, prefect_server: str) -> None:
    (tmp_path / "ratings.csv").write_text("user_id,item_id,timestamp\na,x,1600000000\n")
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {events: ratings.csv}\ntraining: {epochs: 3}\n")
    before = {path: path.read_bytes() for path in (ROOT / "deployment").rglob("*") if path.is_file()}
    said = deploy(tmp_path, "--cron", "0 3 * * *", "--timezone", "Europe/Berlin")
    assert "nightly/mine: next night" in said
    assert "--pool local (`make ui` and the units in deployment/systemd/ start one)" in said
    template = json.loads((ROOT / "deployment" / "pools" / "docker.json").read_text(encoding="utf-8"))
    with SyncPrefectClient(prefect_server) as client:
        here = client.read_deployment_by_name("nightly/mine")
        client.create_work_pool(WorkPoolCreate(name="containers", type="docker", base_job_template=template))
    said = deploy(tmp_path, "--cron", "30 4 * * 1-5", "--timezone", "Asia/Shanghai", "--pool", "containers")
    assert said.endswith("worker start --pool containers.\n")  # those of `make ui` and the units are for the pool `local`
    with SyncPrefectClient(prefect_server) as client:
        with pytest.raises(InputError, match=r"--pool kubernetes: .* no such work pool\. .* in docs/deployment\.md\.$"):
            home_in(client, "kubernetes")
        found = client.read_deployment_by_name("nightly/mine")
        pool = client.read_work_pool("local")
    assert pool.type == "process"
    assert [(one.schedule.cron, one.schedule.timezone, one.active) for one in found.schedules] == [("30 4 * * 1-5", "Asia/Shanghai", True)]
    assert found.entrypoint == "flows.nightly.nightly"
    assert (here.work_pool_name, found.work_pool_name) == ("local", "containers")
    for one, home in ((here, str(ROOT)), (found, "{{ $NIGHTLOOM_HOME }}")):  # that of the machine, and that of the image
        assert one.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": home}}]
    assert found.parameters["config"] == {"name": "mine", "data": {"events": str(tmp_path / "ratings.csv")}, "training": {"epochs": 3}}
    assert "config" in found.parameter_openapi_schema["properties"]
    assert found.concurrency_options is not None
    assert found.concurrency_options.collision_strategy == "CANCEL_NEW"
    with SyncPrefectClient(prefect_server) as client:
        (rule,) = client.read_automations_by_name("nightly/mine: runs without a sign of life")  # one, though it was deployed twice
    assert rule.enabled
    assert str(found.id) in rule.model_dump_json()
    assert {path: path.read_bytes() for path in before} == before
