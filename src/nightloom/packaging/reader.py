"""A bundle without its network: what the service needs to know before it answers. Imports no torch, no pandas and no pyarrow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from nightloom.core.columns import CATALOGUE, Columns
from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.core.queries import Clock
from nightloom.packaging import first_format
from nightloom.packaging.manifest import Manifest

META, SPEC = "meta.json", "feature_spec.json"
LANGUAGE_MODEL = "language_model"
"""Folder of the language model, in a bundle whose language model was tuned."""


class BundleReader:
    """An opened bundle. Files are read when they are first asked for.

    Args:
        folder: the bundle.
        manifest: its `bundle.json`.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open a bundle and check its files; one of the version before is read from an upgraded copy.

        Raises:
            InputError: the folder is no bundle, or a file is missing or damaged.
        """
        folder = first_format.upgraded(folder)
        manifest = Manifest.read(folder)
        missing = [name for name in (CATALOGUE, META, SPEC, "model.safetensors") if name not in manifest.files]
        if missing:
            raise InputError(f"{folder}: not a whole bundle, {', '.join(missing)} missing. Name the bundle folder of a finished run.")
        manifest.check(folder)
        return cls(folder, manifest)

    @cached_property
    def catalogue(self) -> Columns:
        """The items' columns, row i for dense item i: `item_id`, described columns, `text`."""
        return Columns(self.folder / CATALOGUE)

    @cached_property
    def item_ids(self) -> NDArray[np.object_]:
        """Item ids by dense id."""
        return np.array(self.catalogue["item_id"], dtype=object)

    @cached_property
    def index(self) -> dict[str, int]:
        """Dense ids by item id."""
        return {item_id: dense for dense, item_id in enumerate(self.item_ids.tolist())}

    @cached_property
    def meta(self) -> Mapping[str, Any]:
        """Stage prepare's `meta.json`."""
        return self._json(META)

    @cached_property
    def event_names(self) -> EventNames:
        """The event names that the model knows."""
        return EventNames.of(self.meta)

    @cached_property
    def clock(self) -> Clock:
        """When requests are made, as the model takes it."""
        return Clock.of(self.meta)

    @property
    def weights(self) -> Mapping[str, float]:
        """Fusion weight of each scorer; the network has the rest."""
        return self.manifest.weights

    @cached_property
    def tags_separator(self) -> str:
        """What stands between the tags of one cell."""
        return str(self._json(SPEC).get("tags_separator", "|"))

    def titles(self) -> NDArray[np.object_]:
        """What a person calls each item: its first text column, or its id where that is empty, object [items]."""
        kinds: Mapping[str, str] = self._json(SPEC)["kinds"]
        column = next((name for name, kind in kinds.items() if kind == "text" and name in self.catalogue), None)
        if column is None:
            return self.item_ids
        named = zip(self.catalogue[column], self.item_ids, strict=True)
        return np.array([item_id if title is None else title for title, item_id in named], dtype=object)

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """All arrays of a file of the bundle.

        Args:
            name: of a `.safetensors` or `.npz` file, such as `model.safetensors`, `graph.npz` or `item_counters.npz`.

        Raises:
            InputError: the bundle has no such file.
        """
        if name not in self.manifest.files:
            raise InputError(f"{self.folder}: the bundle has no {name}. It has: {', '.join(self.manifest.files)}.")
        path = self.folder / name
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        found: dict[str, NDArray[Any]] = load_file(path)
        return found

    def _json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return content
