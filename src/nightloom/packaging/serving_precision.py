"""How precisely an artefact keeps the sequence model and the item vectors, and their arrays in the file. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nightloom.core.int8_rows import rounded_rows, whole_rows

Precision = Literal["int8", "half", "single"]
MATRICES = ("kv", "qg", "out", "up", "down")
"""The encoder's matrices in `network.safetensors`, [blocks, in, out]; the rest of it is small and stays float32."""
SCALE = ".scale"
"""An int8 array goes with one of this name: for matrices [blocks, out], for vectors [items]."""


@dataclass(frozen=True)
class Precisions:
    """Of the two parts.

    Attributes:
        encoder: of its matrices.
        vectors: of the items.
    """

    encoder: Precision = "single"
    vectors: Precision = "single"


SINGLE = Precisions()
LADDER = (Precisions("int8", "int8"), Precisions("half", "int8"), Precisions("half", "half"), SINGLE)
"""What may serve, the smallest first."""


def stored(arrays: Mapping[str, NDArray[Any]], precisions: Precisions) -> dict[str, NDArray[Any]]:
    """What goes into `network.safetensors`.

    Args:
        arrays: of float32 (`nightloom.packaging.serving_artefact.network_arrays`).
        precisions: of the matrices and of `vectors`.
    """
    found = dict(arrays)
    for name in MATRICES:
        found |= _stored(name, arrays[name], precisions.encoder, columns=True)
    return found | _stored("vectors", arrays["vectors"], precisions.vectors, columns=False)


def rounded_vectors(vectors: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """Vectors [items, dim] as they are once they were stored."""
    if precision == "int8":
        return whole_rows(*rounded_rows(vectors))
    return vectors.astype(np.float16).astype(np.float32) if precision == "half" else vectors


def rounded_columns(matrix: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """The same of a matrix [in, out], whose columns have a scale each."""
    return rounded_vectors(matrix.T, precision).T


def _stored(name: str, values: NDArray[np.float32], precision: Precision, *, columns: bool) -> dict[str, NDArray[Any]]:
    if precision == "single":
        return {name: values}
    if precision == "half":
        return {name: values.astype(np.float16)}
    whole, scale = rounded_rows(values.swapaxes(1, 2) if columns else values)
    return {name: whole.swapaxes(1, 2) if columns else whole, f"{name}{SCALE}": scale}
