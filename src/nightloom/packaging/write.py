"""Writing a bundle: the self-contained folder that goes to the registry, with no language model unless it was tuned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from nightloom.core.columns import CATALOGUE
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.manifest import seal
from nightloom.packaging.reader import LANGUAGE_MODEL, META, SPEC

ENCODER = ("model", "sha256", "pooling", "max_tokens")
"""What of `pretrained.json` says which models made the vectors, and how."""


def write_bundle(recommender: SequentialRecommender, prepared: Path, folder: Path, pretrained: Path | None = None) -> None:
    """Write a bundle. What the folder holds already, such as a tuned language model, becomes a part of it.

    Args:
        recommender: the trained model.
        prepared: folder of stage prepare.
        folder: where to; made where it is not there.
        pretrained: folder of stage load_pretrained, by whose `pretrained.json` the bundle names its encoders; None: it names none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recommender.save(folder)
    for name in (SPEC, META):
        shutil.copyfile(prepared / name, folder / name)
    if (prepared / CATALOGUE).is_file():
        shutil.copyfile(prepared / CATALOGUE, folder / CATALOGUE)
    else:  # a folder that was prepared by the version before, or by hand
        import pandas as pd

        from nightloom.data.preparation.catalogue import write_catalogue

        write_catalogue(pd.read_parquet(prepared / "items.parquet"), folder)
    seal(folder, _encoder(pretrained, tuned=(folder / LANGUAGE_MODEL).is_dir()))


def _encoder(pretrained: Path | None, *, tuned: bool) -> dict[str, Any]:
    """Names and fingerprints of the encoders, as far as they are recorded."""
    path = None if pretrained is None else pretrained / "pretrained.json"
    if path is None or not path.is_file():
        return {}
    said = json.loads(path.read_text(encoding="utf-8"))
    images = said.get("images") or {}
    text = {name: said.get(name) for name in ENCODER} | {"tuned": tuned}
    image = {name: images.get(name) for name in ENCODER[:2]}
    return {name: one for name, one, dim in (("text", text, said.get("dim")), ("image", image, images.get("dim"))) if dim}
