"""MLflow's tracking: one parent run a night, nested runs for the model and each family beside it.

Metrics are named `<protocol>/<metric>` for every family alike, so that ticking runs and pressing Compare tells the story.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any

from nightloom.config import RunConfig
from nightloom.quiet import silence
from nightloom.stage import Night, code_version

NIGHT_TAG = "nightloom.night"
FAMILY_TAG = "nightloom.family"
BATCH = 900
"""Fewer than the 1,000 metrics that MLflow takes at once."""


class Tracking:
    """The MLflow server or file that holds the runs.

    Args:
        root: the mlruns folder; without NIGHTLOOM_MLFLOW_URI the runs are in `mlflow.db` there, their files in `artifacts/`.
    """

    def __init__(self, root: Path) -> None:
        silence()
        from mlflow import MlflowClient

        self.uri = tracking_uri(root)
        self.artifacts = None if "NIGHTLOOM_MLFLOW_URI" in environ else (root.resolve() / "artifacts").as_uri()
        root.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment(self, name: str) -> str:
        """Id of a recommender's experiment, made when missing."""
        found = self.client.get_experiment_by_name(f"nightloom-{name}")
        if found is not None:
            return str(found.experiment_id)
        return str(self.client.create_experiment(f"nightloom-{name}", artifact_location=self.artifacts))

    @contextmanager
    def night(self, night: Night, tags: Mapping[str, str]) -> Iterator[str]:
        """The parent run of a night: finished when the block ends, FAILED or KILLED when it raises.

        Runs of earlier nights that a kill left RUNNING are closed as KILLED.

        Yields:
            The run's id.
        """
        experiment = self.experiment(night.config.name)
        for left in self.client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            self.client.set_terminated(left.info.run_id, "KILLED")
        run = self._create(experiment, f"night {night.night}", tags | {NIGHT_TAG: night.night})
        self.client.log_batch(run, params=_params(night.config))
        try:
            yield run
        except BaseException as error:
            self.client.set_terminated(run, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        self.client.set_terminated(run, "FINISHED")

    def log_family(
        self,
        parent: str,
        family: str,
        metrics: Mapping[str, Mapping[str, float]],
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
        curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        files: Sequence[Path] = (),
    ) -> str:
        """A nested run with one family's results.

        Args:
            parent: the night's run.
            family: name of the family.
            metrics: protocol -> metric -> value.
            tags: hashes and versions.
            params: what the family was fitted with.
            curves: protocol -> epochs of `curves.json`; each number becomes a curve.
            files: plots and tables.

        Returns:
            The nested run's id.
        """
        experiment = self.client.get_run(parent).info.experiment_id
        run = self._create(experiment, family, tags | {"mlflow.parentRunId": parent, FAMILY_TAG: family})
        from mlflow.entities import Param

        self.client.log_batch(run, params=[Param(key, str(value)[:6000]) for key, value in (params or {"family": family}).items()])
        self.log_metrics(run, metrics)
        points = [
            (f"{protocol}/epoch/{key}", float(value), step)
            for protocol, epochs in (curves or {}).items()
            for step, epoch in enumerate(epochs, start=1)
            for key, value in epoch.items()
            if key != "epoch" and isinstance(value, int | float)
        ]
        self._log(run, points)
        for path in files:
            self.client.log_artifact(run, str(path), "plots" if path.suffix == ".png" else None)
        self.client.set_terminated(run, "FINISHED")
        return run

    def log_metrics(self, run: str, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Metrics by protocol."""
        self._log(run, [(f"{protocol}/{name}", float(value), 0) for protocol, found in metrics.items() for name, value in found.items()])

    def log_dataset(self, run: str, name: str, digest: str, source: str, rows: Mapping[str, int]) -> None:
        """The snapshot that a run has seen: by digest and place, nothing is copied."""
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = json.dumps({f"num_{table}": count for table, count in rows.items()})
        dataset = Dataset(name=name, digest=digest[:36], source_type="local", source=json.dumps({"uri": source}), profile=profile)
        self.client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def run_url(self, run: str) -> str:
        """Where the run is shown, relative to the MLflow server."""
        return f"#/experiments/{self.client.get_run(run).info.experiment_id}/runs/{run}"

    def _create(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        return str(self.client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)

    def _log(self, run: str, points: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in points if value == value]  # MLflow refuses NaN
        for at in range(0, len(metrics), BATCH):
            self.client.log_batch(run, metrics=metrics[at : at + BATCH])


def tracking_uri(root: Path) -> str:
    """NIGHTLOOM_MLFLOW_URI, or the SQLite file under the mlruns folder."""
    return environ.get("NIGHTLOOM_MLFLOW_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def git_state(folder: Path) -> str:
    """Commit of a checkout, with "+dirty" when files differ from it; "unknown" outside git."""
    try:
        sha = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "-C", str(folder), "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return sha + ("+dirty" if changed.strip() else "")


def run_tags(night: Night, data_hash: str) -> dict[str, str]:
    """The hashes that every run of a night carries."""
    return {
        "nightloom.data_hash": data_hash,
        "nightloom.config_hash": night.config.digest(),
        "nightloom.git": git_state(Path(__file__).parent),
        "nightloom.code": code_version(),
    }


def _params(config: RunConfig) -> list[Any]:
    from mlflow.entities import Param

    def flat(prefix: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for key, value in content.items():
            if isinstance(value, Mapping) and value:
                yield from flat(f"{prefix}{key}.", value)
            else:
                yield prefix + key, value

    return [Param(key, str(value)[:6000]) for key, value in flat("", config.model_dump(mode="json"))][:100]
