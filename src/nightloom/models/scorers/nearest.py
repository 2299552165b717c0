"""The nearest of a catalogue's vectors: by all products in a small catalogue, by an index in a large one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightloom.core.top_k import top_k
from nightloom.models.scorers.item_graph import Edges
from nightloom.models.scorers.sparse import runs

if TYPE_CHECKING:
    from torch import Tensor

EXACT = 200_000
"""Items up to which all are compared with all, whose products grow with their square."""

PROBES = 32
"""Cells of the index that are searched for an item; benchmarks/many_items.md has what they find and what they cost."""

CELLS = 2
"""Cells of the index for each square root of the items."""

SAMPLE = 40
"""Vectors a cell from which the cells are learned."""

BLOCK = 1 << 14
"""Items whose neighbours are searched for at once in an index."""


def nearest(unit: Tensor, items: NDArray[np.int64], k: int) -> Iterator[Edges]:
    """The k nearest of some items, as edges from them, in their order; an item is no neighbour of itself.

    Above `EXACT` items an inverted file index is asked (faiss; Jégou et al. 2011), which misses some of them.

    Args:
        unit: float32 [n, width], vectors of length one, or of zeros, which are near to nothing.
        items: int64 [m], rows of `unit`.
        k: most neighbours of an item.

    Yields:
        Edges of some of the items: their places in `items`, the neighbours in ascending order, and the cosines, all above zero.
    """
    if len(unit) > EXACT:
        yield from _indexed(unit, items, k)
        return
    for part in runs(np.full(len(items), len(unit))):
        near = (unit[items[part]] @ unit.T).numpy()
        here = np.arange(len(near))
        near[here, items[part]] = 0
        columns = np.sort(top_k(near, k), axis=1)
        values = np.take_along_axis(near, columns, axis=1)
        kept = values > 0
        yield part.start + np.nonzero(kept)[0], columns[kept], values[kept]


def _indexed(unit: Tensor, items: NDArray[np.int64], k: int) -> Iterator[Edges]:
    import faiss  # only a large catalogue pays for it
    import torch

    faiss.omp_set_num_threads(torch.get_num_threads())
    vectors = unit.numpy()
    with_vector = np.flatnonzero(vectors.any(axis=1))
    cells = CELLS * int(len(with_vector) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(unit.shape[1]), unit.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = PROBES
    index.train(vectors[with_vector[np.linspace(0, len(with_vector) - 1, min(SAMPLE * cells, len(with_vector))).astype(np.int64)]])
    for first in range(0, len(with_vector), BLOCK):
        rows = with_vector[first : first + BLOCK]
        index.add_with_ids(vectors[rows], rows)
    for first in range(0, len(items), BLOCK):
        part = items[first : first + BLOCK]
        cosines, found = index.search(vectors[part], k + 1)
        cosines[(found == part[:, None]) | (found < 0)] = 0
        columns = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        columns = np.take_along_axis(columns, np.argsort(np.take_along_axis(found, columns, axis=1), axis=1), axis=1)
        values, targets = np.take_along_axis(cosines, columns, axis=1), np.take_along_axis(found, columns, axis=1)
        kept = values > 0
        yield first + np.nonzero(kept)[0], targets[kept], values[kept]
