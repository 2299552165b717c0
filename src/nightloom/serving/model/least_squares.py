"""The factors of histories: equation 4 of `nightloom.models.scorers.als` as kernels; small calls of numpy cost several times that."""

from __future__ import annotations

from typing import Any

import numpy as np

from nightloom.serving.model.jit import kernel

TOGETHER = 4
"""Events, or rows, that are gone through at once: what is read then serves all of them. The loops are written out for so many."""


@kernel
def solve_history(vectors: Any, gram: Any, items: Any, decay: Any, user: Any) -> None:
    """Solve (gram + sum of w v v') u = sum of 2 w v by Cholesky's decomposition, in double precision.

    Args:
        vectors: float32 [n, factors + 1], the factors of items; the last column does not count.
        gram: float32 [factors, factors], with the regularisation on its diagonal.
        items: int32 [events], positive ones, oldest first; at most as many as `decay` is long.
        decay: float32 [memory], the weight w of an event by its age.
        user: float32 [factors + 1], written but for the last.
    """
    width, events = len(gram), len(items)
    left, right, rows, shares = np.empty((width, width)), np.zeros(width), np.empty((TOGETHER, width)), np.empty(TOGETHER)
    for i in range(width):
        for j in range(i + 1):
            left[i, j] = gram[i, j]
    for first in range(0, events, TOGETHER):
        for one in range(TOGETHER):
            place = min(first + one, events - 1)
            shares[one] = np.float64(decay[events - 1 - place]) if place == first + one else 0.0
            item = items[place]
            for i in range(width):
                rows[one, i] = vectors[item, i]
        for i in range(width):
            a, b, c, d = rows[0, i] * shares[0], rows[1, i] * shares[1], rows[2, i] * shares[2], rows[3, i] * shares[3]
            right[i] += 2 * (a + b + c + d)
            for j in range(i + 1):
                left[i, j] += a * rows[0, j] + b * rows[1, j] + c * rows[2, j] + d * rows[3, j]
    decompose(left, width)
    substitute(left, right, width)
    for i in range(width):
        user[i] = right[i]


@kernel
def solve_coalitions(near: Any, keep: Any, decay: Any, out: Any) -> None:
    """The same of many coalitions of one history by their dual: (1 / w + near) a = 2 over a coalition's events says how much each counts.

    Args:
        near: float64 [events, events], products of the events' factors by the inverse of gram.
        keep: bool [coalitions, events].
        decay: float64 [memory], the weight w of an event by its age in its coalition; older ones do not count.
        out: float64 [coalitions, events], a, written.
    """
    events = keep.shape[1]
    most = min(events, len(decay))
    left, right, places = np.empty((most, most)), np.empty(most), np.empty(most, np.int64)
    for row in range(len(keep)):
        many = 0
        for event in range(events - 1, -1, -1):  # the latest first, so that a place is an age
            out[row, event] = 0
            if keep[row, event] and many < most:
                places[many] = event
                many += 1
        for i in range(many):
            for j in range(i + 1):
                left[i, j] = near[places[i], places[j]]
            left[i, i] += 1 / decay[i]
            right[i] = 2
        decompose(left, many)
        substitute(left, right, many)
        for i in range(many):
            out[row, places[i]] = right[i]


@kernel
def decompose(left: Any, width: Any) -> None:
    """The lower triangle of a positive definite matrix's first rows and columns becomes Cholesky's.

    Rows are made four at a time: what is read of the rows above then serves all four.
    """
    for first in range(0, width, TOGETHER):
        made = first if first + TOGETHER <= width else 0
        for j in range(made):
            a, b, c, d = left[first, j], left[first + 1, j], left[first + 2, j], left[first + 3, j]
            for k in range(j):
                above = left[j, k]
                a -= left[first, k] * above
                b -= left[first + 1, k] * above
                c -= left[first + 2, k] * above
                d -= left[first + 3, k] * above
            unit = 1 / left[j, j]
            left[first, j], left[first + 1, j], left[first + 2, j], left[first + 3, j] = a * unit, b * unit, c * unit, d * unit
        for i in range(first, min(first + TOGETHER, width)):
            for j in range(made, i + 1):
                total = left[i, j]
                for k in range(j):
                    total -= left[i, k] * left[j, k]
                left[i, j] = total / left[j, j] if j < i else np.sqrt(total)


@kernel
def substitute(left: Any, right: Any, width: Any) -> None:
    """Solve for the right side, in place, by what `decompose` has made."""
    for i in range(width):
        total = right[i]
        for k in range(i):
            total -= left[i, k] * right[k]
        right[i] = total / left[i, i]
    for i in range(width - 1, -1, -1):
        total = right[i]
        for k in range(i + 1, width):
            total -= left[k, i] * right[k]
        right[i] = total / left[i, i]
