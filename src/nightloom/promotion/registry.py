"""The model registry: the only file that touches it. `champion` serves, `previous` is the one before, `challenger` the last registered.

A version is registered only when the gate lets it pass, so a rejected night leaves the registry as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightloom.errors import InputError
from nightloom.tracking import Tracking

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
REQUIREMENTS = ["torch", "numpy", "pandas", "pyarrow", "safetensors"]


@dataclass(frozen=True)
class Version:
    """One registered version.

    Attributes:
        model: registered name, `nightloom-<name>`.
        version: its number.
        run_id: the MLflow run that made it.
        tags: hashes and the night.
    """

    model: str
    version: str
    run_id: str
    tags: Mapping[str, str]


class Registry:
    """Registered recommenders.

    Args:
        root: the mlruns folder.
    """

    def __init__(self, root: Path) -> None:
        self.tracking = Tracking(root)
        self.client = self.tracking.client

    def find(self, name: str, alias: str) -> Version | None:
        """The version that holds an alias, or None."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_model_version_by_alias(f"nightloom-{name}", alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return Version(found.name, str(found.version), found.run_id, dict(found.tags))

    def champion(self, name: str) -> Version | None:
        """The version that serves."""
        return self.find(name, CHAMPION)

    def aliases(self, name: str) -> dict[str, str | None]:
        """Version by alias, None where an alias is not set."""
        found = {alias: self.find(name, alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
        return {alias: version.version if version else None for alias, version in found.items()}

    def fetch(self, version: Version, home: Path) -> Path:
        """The bundle of a version on this machine's disk; fetched once."""
        folder = home / f"{version.model}-v{version.version}"
        if not folder.exists():
            import mlflow

            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            mlflow.set_tracking_uri(self.tracking.uri)
            mlflow.set_registry_uri(self.tracking.uri)
            place = mlflow.artifacts.download_artifacts(f"models:/{version.model}/{version.version}", dst_path=str(partial))
            found = next(Path(place).rglob("loom.json"), None)
            if found is None:
                raise InputError(f"{version.model} version {version.version} holds no bundle. Roll back to another version.")
            found.parent.rename(folder)
            shutil.rmtree(partial)
        return folder

    def register(self, name: str, bundle: Path, run_id: str, tags: Mapping[str, str], card: str, example: list[list[str]]) -> Version:
        """Log the bundle as a pyfunc under a run and register it as `challenger`.

        Args:
            name: the config's name.
            bundle: folder that fine_tune made.
            run_id: run of the model's family.
            tags: data, config and git hashes.
            card: the model card, Markdown.
            example: histories of item ids for the input example.
        """
        import mlflow
        import pandas as pd
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
        from mlflow.types.schema import Array

        signature = ModelSignature(
            inputs=Schema([
                ColSpec(Array(DataType.string), "history", required=False),
                ColSpec(Array(DataType.long), "times", required=False),
                ColSpec(DataType.string, "user_id", required=False),
            ]),
            outputs=Schema([ColSpec(Array(DataType.string), "items"), ColSpec(Array(DataType.double), "scores")]),
            params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
        )  # fmt: skip
        model = f"nightloom-{name}"
        mlflow.set_tracking_uri(self.tracking.uri)
        mlflow.set_registry_uri(self.tracking.uri)
        with mlflow.start_run(run_id=run_id):
            logged: Any = mlflow.pyfunc.log_model(
                name="recommender",
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"bundle": str(bundle)},
                code_paths=[str(Path(__file__).parents[1])],
                signature=signature,
                input_example=pd.DataFrame({"history": example}),
                pip_requirements=REQUIREMENTS,
                registered_model_name=model,
            )
        self.client.set_terminated(run_id, "FINISHED")
        version = str(logged.registered_model_version)
        for key, value in tags.items():
            self.client.set_model_version_tag(model, version, key, value)
        self.client.update_model_version(model, version, card)
        self.client.set_registered_model_alias(model, CHALLENGER, version)
        return Version(model, version, run_id, dict(tags))

    def promote(self, version: Version) -> None:
        """Make a version the champion; the former one becomes `previous`. May be repeated after a kill."""
        name = version.model.removeprefix("nightloom-")
        standing = self.champion(name)
        if standing is not None and standing.version != version.version:
            self.client.set_registered_model_alias(version.model, PREVIOUS, standing.version)
        self.client.set_registered_model_alias(version.model, CHAMPION, version.version)
