"""What importing the recommender drags in."""

from __future__ import annotations

import subprocess
import sys

import pytest

EVERYTHING = """
import importlib, pkgutil, sys
import nightloom
for module in pkgutil.walk_packages(nightloom.__path__, "nightloom."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sys.modules)
"""


def modules(code: str) -> set[str]:
    """Top-level names of all that a new process has imported after some code."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_recommender_knows_no_orchestrator_and_no_contract_library() -> None:
    found = modules(EVERYTHING)
    assert "nightloom" in found
    assert not {"prefect", "great_expectations", "ray", "tasks", "flows", "expectations"} & found


@pytest.mark.parametrize(
    "module", ["cli", "runs.tracking", "promotion.registry", "config", "runs.stages", "runs.environment", "models.scorers.registry"]
)
def test_light_modules_stay_light(module: str) -> None:
    assert not {"mlflow", "torch", "transformers", "matplotlib"} & modules(f"import sys, nightloom.{module}\nprint(*sys.modules)")
