"""An opened serving artefact: arrays by file, the catalogue, event names and clock."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from nightloom.core.columns import CATALOGUE, Columns
from nightloom.core.event_names import EventNames
from nightloom.core.queries import Clock
from nightloom.packaging.serving_format import EXPLAINER, PROBES, ServingManifest


class Artefact:
    """What `nightloom.packaging.serving_artefact.write_serving` wrote.

    Args:
        folder: the artefact.
        manifest: its `serving.json`.
    """

    def __init__(self, folder: Path, manifest: ServingManifest) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an artefact and check its files.

        Raises:
            InputError: the folder is no artefact, it is damaged, or of another format.
        """
        return cls(folder, ServingManifest.read(folder))

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """All arrays of a file, to be written to as one likes."""
        return {key: np.array(one, order="C") for key, one in load_file(self.folder / name).items()}

    @cached_property
    def catalogue(self) -> Columns:
        """The items' columns, row i for dense item i: `item_id`, described columns, `text`."""
        return Columns(self.folder / CATALOGUE)

    @property
    def probes(self) -> list[dict[str, Any]]:
        """Requests with the bundle's answers: fields of `Query`, then `items` and `scores`."""
        found: list[dict[str, Any]] = json.loads((self.folder / PROBES).read_text(encoding="utf-8"))
        return found

    @property
    def explainer(self) -> dict[str, Any] | None:
        """What the night fitted for reasons; None where it fitted nothing."""
        path = self.folder / EXPLAINER
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    @cached_property
    def event_names(self) -> EventNames:
        """The event names that the model knows."""
        return EventNames.of(self.manifest.meta)

    @cached_property
    def clock(self) -> Clock:
        """When requests are made, as the model takes it."""
        return Clock.of(self.manifest.meta)


def part(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose name begins with `<prefix>.`, without it."""
    return {name.removeprefix(f"{prefix}."): one for name, one in arrays.items() if name.startswith(f"{prefix}.")}
