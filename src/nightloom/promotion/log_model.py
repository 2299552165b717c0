"""A bundle as a pyfunc among MLflow's logged models: what a registered version points at."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "pyarrow", "safetensors", "scipy")
"""What the registered model imports; nightloom itself travels with it."""


def log_model(
    client: Any,
    bundle: Path,
    run_id: str,
    tags: Mapping[str, str],
    card: str,
    example: list[list[str]],
    events: Path | None,
    exclude_seen: bool,
) -> Any:
    """Save the pyfunc and hand its files to MLflow; gives the logged model.

    This is what mlflow.pyfunc.log_model does, without its global address and active run, and without loading
    the model into this process.

    Args:
        client: MLflow's client.
        bundle: folder that fine_tune made.
        run_id: run of the model's family.
        tags: hashes and the night.
        card: the model card, Markdown.
        example: histories of item ids for the input example.
        events: where the model looks up user ids.
        exclude_seen: whether items of the history are left out unless a request says otherwise.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id, "recommender", run_id, tags=dict(tags), params=run.data.params, model_type="recommender"
    )
    with tempfile.TemporaryDirectory(prefix="nightloom-") as scratch:
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            folder,
            mlflow_model=Model(artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run_id, model_id=logged.model_id),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"bundle": str(bundle)},
            code_paths=[str(Path(__file__).parents[1])],
            signature=_signature(exclude_seen),
            input_example=pd.DataFrame({"history": example}),
            pip_requirements=_requirements(),
            model_config={"events": str(events.resolve()) if events else None},
        )
        for cache in folder.rglob("__pycache__"):
            shutil.rmtree(cache)
        (folder / "model_card.md").write_text(card, encoding="utf-8")
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _signature(exclude_seen: bool) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    inputs = [
        ColSpec(Array(DataType.string), "history", required=False),
        ColSpec(Array(DataType.long), "times", required=False),
        ColSpec(DataType.string, "user_id", required=False),
    ]
    outputs = [ColSpec(Array(DataType.string), "items"), ColSpec(Array(DataType.double), "scores")]
    params = [ParamSpec("k", DataType.long, 10), ParamSpec("exclude_seen", DataType.boolean, exclude_seen)]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))


def _requirements() -> list[str]:
    """The versions that the model was made with, without local labels such as torch's +cpu."""
    pinned = []
    for name in REQUIREMENTS:
        try:
            pinned.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            pinned.append(name)
    return pinned
