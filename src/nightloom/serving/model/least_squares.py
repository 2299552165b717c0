"""The factors of one history: equation 4 of `nightloom.models.scorers.als` as a kernel; small calls of numpy cost several times that."""

from __future__ import annotations

from typing import Any

import numpy as np

from nightloom.serving.model.jit import kernel


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
    left, right = np.zeros((width, width)), np.zeros(width)
    for i in range(width):
        for j in range(i + 1):
            left[i, j] = gram[i, j]
    for place in range(events):
        row, weight = vectors[items[place]], np.float64(decay[events - 1 - place])
        for i in range(width):
            share = weight * row[i]
            right[i] += 2 * share
            for j in range(i + 1):
                left[i, j] += share * row[j]
    for i in range(width):  # left becomes its lower triangle
        for j in range(i + 1):
            total = left[i, j]
            for k in range(j):
                total -= left[i, k] * left[j, k]
            left[i, j] = total / left[j, j] if j < i else np.sqrt(total)
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
        user[i] = right[i]
