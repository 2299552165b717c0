"""What a registered version consists of: its code, its files, and its input and output columns."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nightloom.core.digests import check_listing, listing, read_sealed, write_sealed
from nightloom.packaging.manifest import Manifest

REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "pyarrow", "safetensors", "scipy")
"""Packages that the registered model imports; the code of nightloom is stored with it."""
HERE = Path(__file__).parent
CLICK_FILES = "files.json"
"""Beside a served click head: size and SHA-256 of its files."""


@dataclass(frozen=True)
class Served:
    """A model as MLflow takes it.

    Attributes:
        kind: MLflow's name of the logged model and of its type.
        code: the file that MLflow runs where the model is loaded.
        files: name in the code -> folder.
        signature: MLflow's signature.
        example: rows for the input example; None for no example.
        settings: MLflow's model_config.
    """

    kind: str
    code: Path
    files: Mapping[str, Path]
    signature: Any
    example: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder with the model's own files, the first; another may lie beside it."""
        return next(iter(self.files.values()))


def recommender(
    bundle: Path, serving: Path, example: list[list[str]], events: Path | None, *, exclude_seen: bool, blocklist: Path | None = None
) -> Served:
    """A bundle that ranks for histories, and beside it what the service reads.

    Args:
        bundle: folder that fine_tune made.
        serving: its serving artefact.
        example: histories of item ids.
        events: canonical events.parquet, or the snapshot's folder, in which the model looks up user ids.
        exclude_seen: whether items of the history are left out unless a request says otherwise.
        blocklist: file, which need not be there, that says what is never shown.
    """
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    inputs = [
        ColSpec(Array(DataType.string), "history", required=False),
        ColSpec(Array(DataType.long), "times", required=False),
        ColSpec(Array(DataType.string), "events", required=False),
        ColSpec(Array(DataType.boolean), "positive", required=False),
        ColSpec(Array(Array(DataType.string)), "friends", required=False),
        ColSpec(DataType.string, "user_id", required=False),
        ColSpec(DataType.long, "request_time", required=False),
        ColSpec(DataType.long, "asked_at", required=False),  # the old name of request_time, for one version more
    ]
    heads = Manifest.read(bundle).heads
    probabilities = [name for name, head in (("probability", "reranker"), ("label_probability", "labels")) if heads[head]]
    outputs = [ColSpec(Array(DataType.string), "items"), *(ColSpec(Array(DataType.double), name) for name in ("scores", *probabilities))]
    params = [ParamSpec("k", DataType.long, 10), ParamSpec("exclude_seen", DataType.boolean, exclude_seen)]
    signature = ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))
    settings = {name: str(place.resolve()) if place else None for name, place in (("events", events), ("blocklist", blocklist))}
    files = {"bundle": bundle, "serving": serving}
    return Served("recommender", HERE / "pyfunc_model.py", files, signature, pd.DataFrame({"history": example}), settings)


def click_head(folder: Path, key_file: Path | None = None) -> Served:
    """A click head that gives probabilities for rows of what may be shown.

    Args:
        folder: what `nightloom.models.ctr.save.save` and `Impressions.save` wrote: the head, and the log that its counters are made of.
        key_file: where the key lies by which the log's values were hashed, unless the environment has it. The key itself is not registered.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    from nightloom.data.preparation.impressions import Impressions

    log = Impressions.load(folder)
    inputs = [
        *(ColSpec(DataType.string, name, required=False) for name in log.fields),
        *(ColSpec(DataType.double, name, required=False) for name in log.number_names),
        ColSpec(DataType.long, "time", required=False),
    ]
    signature = ModelSignature(Schema(inputs), Schema([ColSpec(DataType.double, "probability")]))
    settings = {"key_file": str(key_file.resolve()) if key_file else None}
    return Served("click-head", HERE / "pyfunc_clicks.py", {"clicks": folder}, signature, settings=settings)


def write_click_files(head: Path, log: Path, folder: Path) -> Path:
    """Gather what `click_head` needs in one folder, and give it back.

    Args:
        head: the head's folder.
        log: folder of the impressions.
        folder: where to; made.
    """
    folder.mkdir(parents=True)
    for place, names in ((head, ("clicks.json", "clicks.safetensors")), (log, ("impressions.npz", "impressions.json"))):
        for name in names:
            shutil.copyfile(place / name, folder / name)
    write_sealed(folder / CLICK_FILES, {"files": listing(folder, CLICK_FILES)})
    return folder


def check_click_files(folder: Path) -> None:
    """Check what `write_click_files` wrote.

    Raises:
        DamagedError: a file is missing or no longer what was written.
    """
    check_listing(folder, read_sealed(folder / CLICK_FILES)["files"])


def requirements() -> list[str]:
    """The versions that the model was made with, without local labels such as torch's +cpu."""
    pinned = []
    for name in REQUIREMENTS:
        try:
            pinned.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            pinned.append(name)
    return pinned
