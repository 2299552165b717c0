"""A model's files as a logged model of MLflow, to which a registered version points."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nightloom.packaging.served import Served, requirements


def log_model(client: Any, served: Served, run_id: str, tags: Mapping[str, str], card: str) -> Any:
    """Save the pyfunc and hand its files to MLflow; gives the logged model.

    This is what mlflow.pyfunc.log_model does, without its global address and active run, and without loading
    the model into this process.

    Args:
        client: MLflow's client.
        served: the model.
        run_id: of the run that made it.
        tags: of the logged model.
        card: Markdown, stored beside the model.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id, served.kind, run_id, tags=dict(tags), params=run.data.params, model_type=served.kind
    )
    with tempfile.TemporaryDirectory(prefix="nightloom-") as scratch:
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            folder,
            mlflow_model=Model(artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run_id, model_id=logged.model_id),
            python_model=str(served.code),
            artifacts={known: str(folder) for known, folder in served.files.items()},
            code_paths=[str(Path(__file__).parents[1])],
            signature=served.signature,
            input_example=served.example,
            pip_requirements=requirements(),
            model_config=dict(served.settings),
        )
        for cache in folder.rglob("__pycache__"):
            shutil.rmtree(cache)
        (folder / "model_card.md").write_text(card, encoding="utf-8")
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged
