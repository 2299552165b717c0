"""Matrix products: of float32, and of whatever form the encoder's weights have."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from nightloom.serving.model.int8_product import in_bytes, multiply_int8
from nightloom.serving.model.jit import kernel


@kernel
def product(x: Any, w: Any, out: Any) -> None:
    """out = x w, all float32: [n, m] from [n, k] and [k, m].

    Two rows of x and four of w are taken at a time, so that w is read half as often and sums are written a fourth as often: nearly
    the speed of OpenBLAS. A row that is left alone takes eight rows of w.
    """
    n, inner = x.shape
    last = n - n % 2
    for t in range(0, last, 2):
        one, other = out[t], out[t + 1]
        one[:] = 0
        other[:] = 0
        whole = inner - inner % 4
        for i in range(0, whole, 4):
            a, b, c, d = x[t, i], x[t, i + 1], x[t, i + 2], x[t, i + 3]
            e, f, g, h = x[t + 1, i], x[t + 1, i + 1], x[t + 1, i + 2], x[t + 1, i + 3]
            w0, w1, w2, w3 = w[i], w[i + 1], w[i + 2], w[i + 3]
            for j in range(len(one)):
                one[j] += a * w0[j] + b * w1[j] + c * w2[j] + d * w3[j]
                other[j] += e * w0[j] + f * w1[j] + g * w2[j] + h * w3[j]
        for i in range(whole, inner):
            a, e, w0 = x[t, i], x[t + 1, i], w[i]
            for j in range(len(one)):
                one[j] += a * w0[j]
                other[j] += e * w0[j]
    for t in range(last, n):
        row = out[t]
        row[:] = 0
        whole = inner - inner % 8
        for i in range(0, whole, 8):
            a, b, c, d = x[t, i], x[t, i + 1], x[t, i + 2], x[t, i + 3]
            e, f, g, h = x[t, i + 4], x[t, i + 5], x[t, i + 6], x[t, i + 7]
            w0, w1, w2, w3, w4, w5, w6, w7 = w[i], w[i + 1], w[i + 2], w[i + 3], w[i + 4], w[i + 5], w[i + 6], w[i + 7]
            for j in range(len(row)):
                row[j] += a * w0[j] + b * w1[j] + c * w2[j] + d * w3[j] + e * w4[j] + f * w5[j] + g * w6[j] + h * w7[j]
        for i in range(whole, inner):
            a, w0 = x[t, i], w[i]
            for j in range(len(row)):
                row[j] += a * w0[j]


def factor(x: Any, w: Any) -> Any:
    """In kernels: rows, float32 [n, in], as `multiply` takes them with such matrices: rounded once where those are `Packed`."""
    raise NotImplementedError(x, w)


@overload(factor)
def _factor(x: Any, w: Any) -> Any:  # noqa: ARG001
    if isinstance(w, types.Array):

        def taken(x: Any, w: Any) -> Any:  # noqa: ARG001
            return x

    else:

        def taken(x: Any, w: Any) -> Any:  # noqa: ARG001
            return in_bytes(x)

    return taken


def multiply(x: Any, w: Any, block: Any, out: Any) -> Any:
    """In kernels: out = x w[block], float32 [n, out] of a `factor` and matrices [blocks, in, out], or `Packed` ones."""
    raise NotImplementedError(x, w, block, out)


@overload(multiply)
def _multiply(x: Any, w: Any, block: Any, out: Any) -> Any:  # noqa: ARG001
    if isinstance(w, types.Array):

        def written(x: Any, w: Any, block: Any, out: Any) -> Any:
            product(x, w[block], out)

    else:

        def written(x: Any, w: Any, block: Any, out: Any) -> Any:
            multiply_int8(x, w, block, out)

    return written
