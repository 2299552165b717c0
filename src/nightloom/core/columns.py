"""Columns of a table in one file that needs numpy and safetensors alone, and of which only what is read is decoded.

Parquet would need pyarrow, whose import takes longer than opening a whole bundle may.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nightloom.core.errors import InputError

CATALOGUE = "catalogue.safetensors"
"""The items' columns, in a folder of stage prepare and in a bundle."""
TEXT, NUMBER, JSON = "text", "number", "json"
"""How a column is stored: UTF-8 text, float64 with NaN where missing, or one JSON value a cell."""


class Columns:
    """Some columns of equal length, read from a file when they are first asked for.

    Args:
        path: what `write_columns` wrote.

    Raises:
        InputError: the file is missing or is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, "np") as file:
                self._stored: dict[str, str] = json.loads((file.metadata() or {})["columns"])
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise InputError(
                f"{path}: not a readable table ({error}). Run the night again, or bring the file back from a backup."
            ) from error
        self._read: dict[str, Sequence[Any]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __getitem__(self, name: str) -> Sequence[Any]:
        """A column: float64 array of numbers, else a list of text or JSON values in which a missing one is None.

        Raises:
            KeyError: there is no such column.
        """
        if name not in self._read:
            place, kind = self.names.index(name) if name in self._stored else -1, self._stored[name]
            with safe_open(self.path, "np") as file:
                if kind == NUMBER:
                    self._read[name] = file.get_tensor(f"{place}.values")
                else:
                    parts = (file.get_tensor(f"{place}.{part}") for part in ("bytes", "offsets", "missing"))
                    self._read[name] = _decode(*parts, as_json=kind == JSON)
        return self._read[name]

    @classmethod
    def write(cls, columns: Mapping[str, Sequence[Any]], path: Path) -> Self:
        """Write columns of plain Python values.

        Args:
            columns: name -> values: floats with NaN where one is missing, or text or JSON values with None there. Arrays become lists.
            path: of the file.
        """
        stored: dict[str, str] = {}
        tensors: dict[str, NDArray[Any]] = {}
        for place, (name, values) in enumerate(columns.items()):
            if len(values) and all(isinstance(value, float) for value in values):
                stored[name], tensors[f"{place}.values"] = NUMBER, np.array(values, dtype=np.float64)
                continue
            missing = np.array([value is None for value in values], dtype=bool)
            present = [value for value in values if value is not None]
            stored[name] = TEXT if all(isinstance(value, str) for value in present) else JSON
            cells = [b"" if absent else _encode(value, stored[name]) for value, absent in zip(values, missing, strict=True)]
            tensors[f"{place}.bytes"] = np.frombuffer(b"".join(cells), dtype=np.uint8)
            tensors[f"{place}.offsets"] = np.cumsum([0, *map(len, cells)], dtype=np.int64)
            tensors[f"{place}.missing"] = missing
        save_file(tensors, path, {"columns": json.dumps(stored)})
        return cls(path)


def _encode(value: Any, kind: str) -> bytes:
    said = value if kind == TEXT else json.dumps(value, ensure_ascii=False, default=lambda one: one.tolist())
    return str(said).encode()


def _decode(data: NDArray[np.uint8], offsets: NDArray[np.int64], missing: NDArray[np.bool_], *, as_json: bool) -> list[Any]:
    raw, ends = data.tobytes(), offsets.tolist()
    cells = [raw[first:last].decode() for first, last in pairwise(ends)]
    return [None if absent else json.loads(cell) if as_json else cell for cell, absent in zip(cells, missing.tolist(), strict=True)]
