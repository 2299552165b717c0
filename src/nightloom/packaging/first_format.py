"""Bundles of the version before, read for one version more: the same arrays under other names, and no digests.

A champion that was registered then stays comparable. Delete this file, and its call in `reader.py`, with the next version.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nightloom.core.errors import InputError, RenamedWarning
from nightloom.packaging.manifest import FILE, seal

RECOMMENDER = "loom.json"
FILES = {
    "purchase.json": "reranker.json",
    "purchase.safetensors": "reranker.safetensors",
    "tallies.npz": "item_counters.npz",
}
MODEL = {"companions": "scorers", "purchase_head": "reranker"}
SHAPE = {"n_kinds": "n_event_types"}
META = {"kinds": "event_types", "usual_kind": "default_event_type", "borders": "cutoffs"}
RERANKER = {"usual": "fallback"}
TENSORS = {
    "net.encoder.kinds.weight": "net.encoder.event_types.weight",
    "net.label_head.vain": "net.label_head.negative",
    "net.usual": "net.prior_log_odds",
}
NUMBERED = {"knots.": "bin_edges."}

_copies: dict[str, tempfile.TemporaryDirectory[str]] = {}
"""Bundle -> its upgraded copy, which goes away with the process."""


def upgraded(folder: Path) -> Path:
    """The bundle itself, or where it is of the version before an upgraded copy, made once in the life of a process.

    Raises:
        InputError: it can not be upgraded.
    """
    old = folder / RECOMMENDER
    if not old.is_file() or (folder / FILE).is_file():
        return folder
    known = f"{folder.resolve()} {old.stat().st_mtime_ns}"
    if known not in _copies:
        said = f"{folder}: a bundle of the version before. The next version does not read such bundles: train the model again till then."
        warnings.warn(said, RenamedWarning, stacklevel=3)
        copy = tempfile.TemporaryDirectory(prefix="nightloom-bundle-")
        try:
            _upgrade(folder, Path(copy.name))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            copy.cleanup()
            raise InputError(f"{folder}: damaged, it can not be read ({error!r}). Name the bundle folder of a finished run.") from error
        _copies[known] = copy
    return Path(_copies[known].name)


def _upgrade(old: Path, new: Path) -> None:
    import pandas as pd

    from nightloom.data.preparation.catalogue import write_catalogue

    for path in old.iterdir():
        place = new / FILES.get(path.name, path.name)
        if path.is_dir():
            shutil.copytree(path, place)
        elif path.suffix == ".safetensors":
            _rename_tensors(path, place)
        elif path.name not in (RECOMMENDER, "items.parquet"):
            shutil.copyfile(path, place)
    write_catalogue(pd.read_parquet(old / "items.parquet"), new)
    for name, names in (("meta.json", META), ("reranker.json", RERANKER)):
        if (new / name).is_file():
            (new / name).write_text(json.dumps(_renamed(_json(new / name), names)), encoding="utf-8")
    said = _json(old / RECOMMENDER)
    heads = {"reranker": bool(said.get("purchase")), "labels": bool(said.get("labels"))}
    sections = {"family": said["family"], "model": _renamed(said["model"], MODEL), "shape": _renamed(said["shape"], SHAPE)}
    (new / FILE).write_text(json.dumps({**sections, "weights": said["weights"], "heads": heads}), encoding="utf-8")
    seal(new, {})


def _rename_tensors(old: Path, new: Path) -> None:
    with safe_open(old, "np") as file:
        names = {name: TENSORS.get(name, name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        for before, now in NUMBERED.items():
            names = {
                name: now + new_name.removeprefix(before) if new_name.startswith(before) else new_name for name, new_name in names.items()
            }
        save_file({names[name]: file.get_tensor(name) for name in names}, new, file.metadata())


def _renamed(section: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in section.items()}


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
