"""The files of deployment/: valid by the schemas of Kubernetes, and at one with each other and with the code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

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
        spec = one["spec"]
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


def test_no_secret_is_written_down() -> None:
    for file in [DEPLOYMENT / "compose.yaml", *KUBERNETES.glob("*.yaml")]:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"://\w+:[^$@/\s]+@", text), file
        for line in text.splitlines():
            if re.search(r"PASSWORD|API_KEYS|SECRET", line) and not line.startswith("#"):
                assert re.search(r"\$\{\w+:\?|secretKeyRef|\$\(PGPASSWORD\)", line), line
