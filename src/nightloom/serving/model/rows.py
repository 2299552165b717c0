"""Item vectors as kernels read them: float32, or int8 with a scale for each row. Users stay float32, so only vectors are rounded.

Of int8 a quarter of the memory is read; the processor turns it into float32 as fast as it multiplies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from nightloom.core.int8_rows import rounded_rows, whole_rows
from nightloom.serving.items.growing import Growing
from nightloom.serving.model.jit import FASTMATH, kernel

FloatArray = NDArray[np.float32]
COMPILED = {"jit_options": {"fastmath": FASTMATH, "error_model": "numpy"}}


class Int8Rows(NamedTuple):
    """Rounded vectors.

    Attributes:
        whole: int8 [n, dim].
        scale: float32 [n], what a row is multiplied by.
    """

    whole: NDArray[np.int8]
    scale: FloatArray


Rows = FloatArray | Int8Rows


def taken(rows: Rows, items: NDArray[Any] | slice) -> FloatArray:
    """Some vectors, float32 [items, dim]."""
    return whole_rows(rows.whole[items], rows.scale[items]) if isinstance(rows, Int8Rows) else rows[items]


class GrowingRows:
    """Vectors that others are appended to, each rounded as those that are there.

    Args:
        rows: copied.
    """

    def __init__(self, rows: Rows) -> None:
        self._parts: list[Growing[Any]] = [Growing(one) for one in rows] if isinstance(rows, Int8Rows) else [Growing(rows)]

    @property
    def rows(self) -> Rows:
        """All of them; as `Growing.array`."""
        values, *scale = (one.array for one in self._parts)
        return Int8Rows(values, *scale) if scale else values

    def append(self, vector: FloatArray) -> None:
        """Take a vector at the end, float32 [dim]."""
        for one, value in zip(self._parts, self._rounded(vector), strict=True):
            one.append(value)

    def set(self, item: int, vector: FloatArray) -> None:
        """Change a vector."""
        for one, value in zip(self._parts, self._rounded(vector), strict=True):
            one.array[item] = value

    def _rounded(self, vector: FloatArray) -> tuple[NDArray[Any], ...]:
        return rounded_rows(vector) if len(self._parts) > 1 else (vector,)


def add_row(rows: Any, item: Any, out: Any) -> Any:
    """In kernels: add an item's vector to `out`, float32 [dim]."""
    raise NotImplementedError(rows, item, out)


def inner_at(rows: Any, item: Any, user: Any) -> Any:
    """In kernels: the inner product of an item's vector and a user's."""
    raise NotImplementedError(rows, item, user)


def inner_products(rows: Any, user: Any, slope: Any, offset: Any, pool: Any, out: Any) -> Any:
    """In kernels: `slope` times the inner products with the items of `pool`, plus `offset`, to `out`, float32 [m]."""
    raise NotImplementedError(rows, user, slope, offset, pool, out)


@kernel
def inner(row: Any, user: Any) -> Any:
    """Inner product of two vectors, float32."""
    dot = np.float32(0)
    for j in range(len(user)):
        dot += np.float32(row[j]) * user[j]
    return dot


@kernel
def _add_float(rows: Any, item: Any, out: Any) -> None:
    out += rows[item]


@kernel
def _add_int8(rows: Any, item: Any, out: Any) -> None:
    row, scale = rows.whole[item], rows.scale[item]
    for j in range(len(out)):
        out[j] += np.float32(row[j]) * scale


@kernel
def _inner_int8(rows: Any, item: Any, user: Any) -> Any:
    return inner(rows.whole[item], user) * rows.scale[item]


@kernel
def _inner_float(rows: Any, item: Any, user: Any) -> Any:
    return inner(rows[item], user)


@kernel
def _products_float(vectors: Any, user: Any, slope: Any, offset: Any, pool: Any, out: Any) -> None:
    last = len(pool) - len(pool) % 4
    for place in range(0, last, 4):  # four rows at a time, so that the user vector is read a fourth as often
        row0, row1, row2, row3 = vectors[pool[place]], vectors[pool[place + 1]], vectors[pool[place + 2]], vectors[pool[place + 3]]
        dot0 = dot1 = dot2 = dot3 = np.float32(0)
        for j in range(len(user)):
            x = user[j]
            dot0 += row0[j] * x
            dot1 += row1[j] * x
            dot2 += row2[j] * x
            dot3 += row3[j] * x
        out[place], out[place + 1] = dot0 * slope + offset, dot1 * slope + offset
        out[place + 2], out[place + 3] = dot2 * slope + offset, dot3 * slope + offset
    for place in range(last, len(pool)):
        out[place] = inner(vectors[pool[place]], user) * slope + offset


@kernel
def _products_int8(rows: Any, user: Any, slope: Any, offset: Any, pool: Any, out: Any) -> None:
    whole, scale = rows.whole, rows.scale
    for place in range(len(pool)):
        item = pool[place]
        out[place] = inner(whole[item], user) * (scale[item] * slope) + offset


@overload(add_row, **COMPILED)
def _add_row(rows: Any, item: Any, out: Any) -> Any:  # noqa: ARG001
    add = _add_float if isinstance(rows, types.Array) else _add_int8

    def added(rows: Any, item: Any, out: Any) -> Any:
        add(rows, item, out)

    return added


@overload(inner_at, **COMPILED)
def _inner_at(rows: Any, item: Any, user: Any) -> Any:  # noqa: ARG001
    product = _inner_float if isinstance(rows, types.Array) else _inner_int8

    def found(rows: Any, item: Any, user: Any) -> Any:
        return product(rows, item, user)

    return found


@overload(inner_products, **COMPILED)
def _inner_products(rows: Any, user: Any, slope: Any, offset: Any, pool: Any, out: Any) -> Any:  # noqa: ARG001
    products = _products_float if isinstance(rows, types.Array) else _products_int8

    def written(rows: Any, user: Any, slope: Any, offset: Any, pool: Any, out: Any) -> Any:
        products(rows, user, slope, offset, pool, out)

    return written
