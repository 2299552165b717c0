"""The nearest of a catalogue's vectors: by all products in a small catalogue, within cells of it in a large one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import gather, offsets_of
from nightloom.core.threads import each
from nightloom.core.top_k import top_k
from nightloom.models.scorers.item_graph import Edges
from nightloom.models.scorers.sparse import runs

if TYPE_CHECKING:
    from torch import Tensor

EXACT = 200_000
"""Items up to which all are compared with all, whose products grow with their square."""

PROBES = 32
"""Cells that are searched for the items of one; benchmarks/many_items.md has what they find and what they cost."""

CELLS = 2
"""Cells for each square root of the items."""

SAMPLE = 40
"""Vectors a cell from which the cells are learned."""

ROUNDS = 8
"""Rounds in which they are learned."""

BLOCK = 1 << 12
"""Vectors that are put into cells at once."""

SCORES = 1 << 22
"""Products that are held at once by a thread."""


def nearest(unit: Tensor, items: NDArray[np.int64], k: int) -> Iterator[Edges]:
    """The k nearest of some items of a small catalogue, as edges from them, in their order; an item is no neighbour of itself.

    Args:
        unit: float32 [n, width], vectors of length one, or of zeros, which are near to nothing.
        items: int64 [m], rows of `unit`.
        k: most neighbours of an item.

    Yields:
        Edges of some of the items: their places in `items`, the neighbours in ascending order, and the cosines, all above zero.
    """
    for part in runs(np.full(len(items), len(unit))):
        near = (unit[items[part]] @ unit.T).numpy()
        here = np.arange(len(near))
        near[here, items[part]] = 0
        columns = np.sort(top_k(near, k), axis=1)
        values = np.take_along_axis(near, columns, axis=1)
        kept = values > 0
        yield part.start + np.nonzero(kept)[0], columns[kept], values[kept]


def nearest_in_cells(unit: Tensor, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k nearest of each item of a large catalogue, of which some are missed.

    Vectors are dealt to cells around centres that k-means finds, as in an inverted file (Jégou et al. 2011). The items of a cell are
    compared with those of the `PROBES` cells whose centres are nearest to its own, all at once: as a product of two matrices that takes
    a fifth of the time of asking an index item by item.

    Args:
        unit: float16 or float32 [n, width], vectors of length one, or of zeros, which are near to nothing.
        k: most neighbours of an item.

    Returns:
        int32 [n, k] the neighbours, ascending, and float32 [n, k] the cosines; where a cosine is zero there is no neighbour.
    """
    import torch

    given = torch.nonzero(unit.abs().amax(1) > 0)[:, 0]
    centres = _centres(unit, given)
    owner = torch.cat([(unit[rows].float() @ centres.T).argmax(1) for rows in given.split(BLOCK)])
    order = owner.argsort(stable=True)
    members = given[order]  # cell by cell
    counts = torch.bincount(owner, minlength=len(centres)).numpy()
    offsets = offsets_of(counts)
    probed = top_k((centres @ centres.T).numpy(), PROBES)
    found, cosines = np.zeros((len(unit), k), dtype=np.int32), np.zeros((len(unit), k), dtype=np.float32)

    def search(cell: int) -> None:
        """Fill in what is found for the items of a cell."""
        there = members[torch.from_numpy(gather(offsets[:-1][probed[cell]], counts[probed[cell]]))]
        others, candidates = unit[there].float(), there.numpy()
        for rows in members[offsets[cell] : offsets[cell + 1]].split(max(1, SCORES // max(len(there), 1))):
            near, mine = (unit[rows].float() @ others.T).numpy(), rows.numpy()
            near[mine[:, None] == candidates] = 0
            columns = top_k(near, k)
            targets, values = candidates[columns], np.maximum(np.take_along_axis(near, columns, 1), 0)
            turn = np.argsort(targets, axis=1)
            width = columns.shape[1]
            found[mine, :width], cosines[mine, :width] = np.take_along_axis(targets, turn, 1), np.take_along_axis(values, turn, 1)

    for _ in each(search, np.flatnonzero(counts).tolist()):
        pass
    return found, cosines


def _centres(unit: Tensor, given: Tensor) -> Tensor:
    """Centres of cells, float32 [cells, width], from a sample of the vectors at equal distances."""
    import faiss  # only a large catalogue pays for it
    import torch

    cells = max(1, CELLS * int(len(given) ** 0.5))
    some = given[torch.linspace(0, len(given) - 1, min(SAMPLE * cells, len(given)), dtype=torch.float64).long()]
    faiss.omp_set_num_threads(torch.get_num_threads())
    means = faiss.Kmeans(unit.shape[1], cells, niter=ROUNDS, spherical=True, seed=1, min_points_per_centroid=1)
    means.train(unit[some].float().numpy())
    return torch.from_numpy(np.asarray(means.centroids).reshape(cells, -1))
