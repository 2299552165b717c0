"""A model's files as a logged model of MLflow, to which a registered version points."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nightloom.packaging.served import Served, requirements

_MLFLOW_STATE = threading.Lock()
"""MLflow's address is the process's, so one model is logged at a time."""


def log_model(client: Any, served: Served, run_id: str, tags: Mapping[str, str], card: str, data_card: str | None = None) -> Any:
    """Log a model with `mlflow.pyfunc.log_model`, and its run's metrics and data set with it.

    The logged model is pending until all its files are there. No version points at it yet, so a kill leaves none by halves.

    Args:
        client: MLflow's client.
        served: the model.
        run_id: of the run that made it.
        tags: of the logged model.
        card: Markdown, kept beside the model.
        data_card: likewise, of the data; None: there is none.

    Returns:
        MLflow's logged model.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id, served.kind, run_id, tags=dict(tags), params=run.data.params, model_type=served.kind
    )
    with _address(client.tracking_uri):
        mlflow.pyfunc.log_model(
            name=served.kind,
            model_id=logged.model_id,
            python_model=str(served.code),
            artifacts={known: str(folder) for known, folder in served.files.items()},
            code_paths=[str(Path(__file__).parents[1])],
            signature=served.signature,
            input_example=served.example,
            pip_requirements=requirements(),
            model_config=dict(served.settings),
        )
    with tempfile.TemporaryDirectory(prefix="nightloom-") as scratch:
        for name, said in (("model_card.md", card), ("data_card.md", data_card)):
            if said is not None:
                (Path(scratch) / name).write_text(said, encoding="utf-8")
        client.log_model_artifacts(logged.model_id, scratch)
    _log_metrics(client, run, logged.model_id)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _log_metrics(client: Any, run: Any, model_id: str) -> None:
    """The run's results as the model's, with the data set that they were measured on; the epochs' curves stay with the run."""
    from mlflow.entities import Metric

    seen = [one.dataset for one in run.inputs.dataset_inputs]
    name, digest = (seen[0].name, seen[0].digest) if seen else (None, None)
    metrics = [
        Metric(key, one.value, one.timestamp, one.step, model_id, name, digest, run.info.run_id)
        for key in run.data.metrics
        for one in client.get_metric_history(run.info.run_id, key)
        if one.step == 0
    ]
    if metrics:
        client.log_batch(run.info.run_id, metrics=metrics)


@contextmanager
def _address(uri: str) -> Iterator[None]:
    """MLflow's global address for the block, without an active run; afterwards it is as it was.

    An active run would be marked as running again, and a kill would leave it so. MLflow also loads the model to try its
    example. What that does to this process is taken back: the search path for modules, and compiled files beside the
    model's code.
    """
    import mlflow

    with _MLFLOW_STATE:
        before, path = (mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None), list(sys.path)
        compiles, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        mlflow.set_tracking_uri(uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before)  # None takes it back
            sys.path[:], sys.dont_write_bytecode = path, compiles
