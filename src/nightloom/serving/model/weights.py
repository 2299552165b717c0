"""The network of an artefact in memory: as float32, or in int8 where it is kept so and the processor multiplies it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nightloom.core.int8_rows import whole_rows
from nightloom.packaging.serving_precision import SCALE
from nightloom.serving.items.growing import aligned
from nightloom.serving.model.int8_product import Packed, has_vnni, packed
from nightloom.serving.model.rows import Int8Rows, Rows
from nightloom.serving.model.transformer import Network

Arithmetic = Literal["int8", "float32"]
Arrays = Mapping[str, NDArray[Any]]


def network_of(arrays: Arrays, *, int8: bool) -> Network:
    """The encoder's weights.

    Args:
        arrays: `network.safetensors` of an artefact.
        int8: multiply in int8 what is kept in int8. On a processor that can not it is float32, which differs by rounding alone.
    """
    found: dict[str, Any] = {name: _weights(arrays, name, int8=int8 and has_vnni()) for name in Network._fields}
    return Network(**found)


def rows_of(arrays: Arrays) -> Rows:
    """The item vectors."""
    vectors = arrays["vectors"]
    return Int8Rows(vectors, arrays[f"vectors{SCALE}"]) if vectors.dtype == np.int8 else vectors.astype(np.float32)


def _weights(arrays: Arrays, name: str, *, int8: bool) -> NDArray[np.float32] | Packed:
    values = arrays[name]
    if values.dtype != np.int8:
        return aligned(values.astype(np.float32))
    scales = arrays[f"{name}{SCALE}"]
    if int8:
        return packed(values, scales)
    return aligned(whole_rows(values.swapaxes(1, 2), scales).swapaxes(1, 2))
