"""MLflow's tracking: one parent run a night, nested runs for the model and each baseline.

Metrics are named `<protocol>/<metric>` for every family alike, so that Compare lays them side by side. The model's run is
open while it trains, so that its curves can be followed. MLflow is imported when a `Tracking` is made, its address is
handed over explicitly, and no global state is set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nightloom.config import RunConfig
from nightloom.core.secrets import hidden, secrets_hidden
from nightloom.runs.backfill import TAG
from nightloom.runs.environment import telemetry_off
from nightloom.runs.mlflow_store import open_store, reached, tracking_uri
from nightloom.runs.processes import alive, this_process
from nightloom.runs.run_content import epoch_points, flatten, outcome_content, result_points
from nightloom.runs.stages import Night
from nightloom.runs.storage import Storage

NIGHT_TAG = "nightloom.night"
FAMILY_TAG = "nightloom.family"
STUDY_TAG = "nightloom.study"
PROCESS_TAG = "nightloom.process"
PARENT_TAG = "mlflow.parentRunId"
FIDELITY = ("pos_at_5", "cdcg", "deletion", "insertion")
"""Figures of the fidelity of reasons, a step for each number of events."""
METRICS_AT_ONCE, PARAMS_AT_ONCE, PARAM_LENGTH = 1000, 100, 6000
"""What MLflow takes in one request, and of one parameter."""


class Tracking:
    """The MLflow server or file that holds the runs.

    Args:
        root: the mlruns folder; without NIGHTLOOM_MLFLOW_URI the runs are in `mlflow.db` there. A server says itself where files go;
            without one they are in `artifacts/`, there or in the store of NIGHTLOOM_STORE.

    Raises:
        NightloomError: the server does not answer, or the database is locked or of another MLflow.
    """

    def __init__(self, root: Path) -> None:
        telemetry_off()
        from mlflow import MlflowClient

        self.uri = tracking_uri(root)
        self.artifacts = None if self.uri.startswith("http") else Storage.of(root).artifacts
        root.mkdir(parents=True, exist_ok=True)
        open_store(self.uri)
        with self.reached():
            self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Wait for a locked database, and say plainly what to do when MLflow can not be reached while the block runs."""
        with secrets_hidden(), reached(self.uri):
            yield

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
        title = f"backfill of {night.as_of}" if night.as_of else f"night {night.night}"
        own = {NIGHT_TAG: night.night} | ({TAG: str(night.as_of)} if night.as_of else {})
        with self.parent(night.config, title, {**tags, **own}) as run:
            yield run

    @contextmanager
    def study(self, config: RunConfig, name: str, folder: Path, tags: Mapping[str, str]) -> Iterator[str]:
        """The parent run of a tuning; one that was killed goes on in the run that it had, whose id is kept in the study's folder.

        Yields:
            The run's id.
        """
        note = folder / "mlflow_run_id"
        last = note.read_text(encoding="utf-8") if note.exists() else None
        with self.parent(config, f"tune {name}", {**tags, STUDY_TAG: name}, last) as run:
            folder.mkdir(parents=True, exist_ok=True)
            note.write_text(run, encoding="utf-8")
            yield run

    @contextmanager
    def parent(self, config: RunConfig, title: str, tags: Mapping[str, str], last: str | None = None) -> Iterator[str]:
        """A run with others nested in it.

        Args:
            config: its parameters, and whose experiment it is in.
            title: what it is called.
            tags: hashes and versions.
            last: an earlier run to go on with, where it is still there.

        Yields:
            The run's id.
        """
        with self.reached():
            experiment = self.experiment(config.name)
            self._close_left(experiment)
            if last and self.client.search_runs([experiment], f"attributes.run_id = '{last}'"):
                run = last
                self.client.set_tag(run, PROCESS_TAG, this_process())
                self.client.update_run(run, status="RUNNING")
            else:
                run = self._create(experiment, title, tags)
                self._log_params(run, config.model_dump(mode="json"))
        status = "KILLED"
        try:
            yield run
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            with self.reached():
                for left in self._nested(run, "attributes.status = 'RUNNING'"):
                    self.client.set_terminated(left.info.run_id, status)
                self.client.set_terminated(run, status)

    def close_left(self, name: str) -> None:
        """Close as KILLED what killed nights of a recommender left RUNNING; `parent` does so by itself."""
        with self.reached():
            self._close_left(self.experiment(name))

    def _close_left(self, experiment: str) -> None:
        for left in self.client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            if not alive(left.data.tags.get(PROCESS_TAG)):
                self.client.set_terminated(left.info.run_id, "KILLED")

    def open_family(self, parent: str, family: str, tags: Mapping[str, str]) -> str:
        """The nested run of a family that is still open; made where there is none.

        Args:
            parent: the night's run.
            family: whose.
            tags: hashes and versions, for a new run.

        Returns:
            The nested run's id. `log_family` finishes it; the end of the parent closes it as what became of the night.
        """
        with self.reached():
            for found in self._nested(parent, f"attributes.status = 'RUNNING' and tags.`{FAMILY_TAG}` = '{family}'"):
                return str(found.info.run_id)
            above = self.client.get_run(parent)
            return self._create(above.info.experiment_id, family, {**tags, FAMILY_TAG: family, PARENT_TAG: parent})

    def log_epoch(self, run: str, protocol: str, epoch: Mapping[str, Any]) -> None:
        """One epoch of a model that trains, as a point of each curve.

        Args:
            run: the model's run.
            protocol: which split.
            epoch: a line of `curves.json`.
        """
        with self.reached():
            self._log_metrics(run, epoch_points(protocol, epoch))

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
        """A family's results and the parent's data sets, in its nested run: the open one, or a new one; see `log_nested`."""
        params = {"family": family} | dict(params or {})
        run = self.open_family(parent, family, tags)
        return self.log_nested(parent, family, metrics, tags=tags, params=params, curves=curves, files=files, run=run)

    def log_nested(
        self,
        parent: str,
        name: str,
        metrics: Mapping[str, Mapping[str, float]],
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        files: Sequence[Path] = (),
        run: str | None = None,
    ) -> str:
        """A finished run inside another, with the parent's data sets.

        Args:
            parent: the night's run, or the study's.
            name: what the run is called.
            metrics: protocol -> metric -> value.
            tags: hashes and versions.
            params: what was fitted, and with what; nested mappings get dotted names.
            curves: protocol -> epochs of `curves.json`; each number becomes a curve over epochs, `<protocol>/epoch/<name>`.
            files: plots and tables.
            run: an open nested run that is finished in place of a new one. Epochs that it has already are not logged again.

        Returns:
            The nested run's id.
        """
        from mlflow.entities import DatasetInput

        with self.reached():
            above = self.client.get_run(parent)
            run = run or self._create(above.info.experiment_id, name, {**tags, PARENT_TAG: parent})
            seen = [DatasetInput(one.dataset, one.tags) for one in above.inputs.dataset_inputs]
            if seen:
                self.client.log_inputs(run, seen)
            self._log_params(run, params)
            self._log_metrics(run, result_points(metrics))
            for protocol, epochs in (curves or {}).items():
                logged = {point.step for point in self.client.get_metric_history(run, f"{protocol}/epoch/loss")}
                self._log_metrics(
                    run, [point for epoch in epochs if epoch["epoch"] not in logged for point in epoch_points(protocol, epoch)]
                )
            for path in files:
                self.client.log_artifact(run, str(path), "plots" if path.suffix == ".png" else None)
            self.client.set_terminated(run, "FINISHED")
        return run

    def log_metrics(self, run: str, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Metrics by protocol."""
        with self.reached():
            self._log_metrics(run, result_points(metrics))

    def log_outcome(self, run: str, outcome: str, gate: Mapping[str, Any], headline: str, reasons: Sequence[str]) -> None:
        """What became of a night: tags to filter its run by, figures to sort it by, and a note to read.

        Args:
            run: the night's run.
            outcome: promoted, waits, rejected, dry_run, disabled or refused.
            gate: the gate's `Decision` as a dict; empty where the night never got there.
            headline: what happened, in one line.
            reasons: why, in sentences.
        """
        tags, figures = outcome_content(outcome, gate, headline, reasons)
        with self.reached():
            for name, value in tags.items():
                self.client.set_tag(run, name, value)
            self._log_metrics(run, figures)

    def log_dataset(self, run: str, name: str, digest: str, source: str, rows: Mapping[str, int]) -> None:
        """The snapshot that a run has seen: by digest and place, nothing is copied.

        Args:
            run: the run.
            name: of the data.
            digest: content hash; MLflow keeps its first 36 characters.
            source: the snapshot's folder.
            rows: table -> rows.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = json.dumps({f"num_{table}": count for table, count in rows.items()})
        dataset = Dataset(name=name, digest=digest[:36], source_type="local", source=json.dumps({"uri": source}), profile=profile)
        with self.reached():
            self.client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def download(self, run: str, name: str, folder: Path) -> Path | None:
        """A run's artifact on this machine's disk; None when neither the run nor its parent or nested runs have it."""
        from mlflow.artifacts import download_artifacts

        with self.reached():
            found = self.client.get_run(run)
            parent = found.data.tags.get(PARENT_TAG, run)
            for holder in dict.fromkeys([run, parent, *(one.info.run_id for one in self._nested(parent))]):
                if any(entry.path == name for entry in self.client.list_artifacts(holder)):
                    return Path(download_artifacts(run_id=holder, artifact_path=name, dst_path=str(folder), tracking_uri=self.uri))
        return None

    def run_url(self, run: str) -> str:
        """Where the run is shown, relative to the MLflow server."""
        return self._runs(run, f"/{run}")

    def runs_url(self, run: str) -> str:
        """Where all runs of a run's experiment are shown as a table, relative to the MLflow server."""
        return self._runs(run)

    def _runs(self, run: str, page: str = "") -> str:
        """A page under a run's experiment. Without the workflow type MLflow opens its view of language models."""
        with self.reached():
            return f"#/experiments/{self.client.get_run(run).info.experiment_id}/runs{page}?workflowType=machine_learning"

    def _nested(self, parent: str, more: str = "") -> list[Any]:
        """The runs nested in a run, those that a filter lets pass."""
        experiment = self.client.get_run(parent).info.experiment_id
        given = f"tags.`{PARENT_TAG}` = '{parent}'" + (f" and {more}" if more else "")
        return list(self.client.search_runs([experiment], given))

    def _create(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        return str(self.client.create_run(experiment, run_name=name, tags={**tags, PROCESS_TAG: this_process()}).info.run_id)

    def _log_params(self, run: str, content: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, hidden(str(value))[:PARAM_LENGTH]) for key, value in flatten(content).items()]
        for at in range(0, len(params), PARAMS_AT_ONCE):
            self.client.log_batch(run, params=params[at : at + PARAMS_AT_ONCE])

    def log_plots(self, run: str, folder: Path) -> None:
        """Log the plots of a folder, if there is one, under `reasons/` of a run."""
        with self.reached():
            for path in sorted(folder.glob("*.png")):
                self.client.log_artifact(run, str(path), "reasons")

    def log_reasons(self, run: str, folder: Path, figures: Mapping[str, Any], votes: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """Log how faithful a night's reasons are, how helpful people found them, their plots and their table, without user ids.

        Args:
            run: the night's.
            folder: of stage explain.
            figures: of the stage.
            votes: kind of reason -> vote -> how often (`nightloom.core.reason_votes`).
        """
        import pandas as pd

        points = [(f"fidelity/{name}", float(row[name]), int(row["removed"])) for row in figures["fidelity"] for name in FIDELITY]
        points += [
            (f"fidelity/service_{name}{'' if family == 'challenger' else f'_{family}'}", float(value), 0)
            for family, found in figures["service_fidelity"].items()
            for name, value in found.items()
        ]
        points += [(f"explain/{name}", float(value), 0) for name, value in (figures["estimator"] or {}).items()]
        points += [(f"reasons/{vote}_{kind}", float(many), 0) for kind, said in (votes or {}).items() for vote, many in said.items()]
        with self.reached():
            self._log_metrics(run, points)
            for path in sorted((folder / "plots").iterdir()):
                if path.stem.startswith("shap_") or path.stem == "reasons_summary":
                    self.client.log_artifact(run, str(path), "reasons")
            table = pd.read_parquet(folder / "reasons.parquet")
            number = pd.factorize(table["user_id"])[0] + 1
            self.client.log_table(run, table.drop(columns="user_id").assign(recommendation=number), "reasons/table.json")

    def _log_metrics(self, run: str, points: Sequence[tuple[str, float, int]]) -> None:
        """Points are (name, value, step); one request for many, since one each costs 6 to 10 ms."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in points if value == value]  # MLflow refuses NaN
        for at in range(0, len(metrics), METRICS_AT_ONCE):
            self.client.log_batch(run, metrics=metrics[at : at + METRICS_AT_ONCE])
