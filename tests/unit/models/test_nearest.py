"""Neighbours of a catalogue's vectors, by all products and by an index."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nightloom.models.scorers import nearest as module
from nightloom.models.scorers.nearest import nearest

N, GROUPS, WIDTH, K = 3000, 60, 16, 10


def vectors() -> torch.Tensor:
    """Vectors in groups, of length one, but for some of zeros."""
    random = np.random.default_rng(3)
    found = random.normal(size=(GROUPS, WIDTH))[random.integers(0, GROUPS, N)] + 0.4 * random.normal(size=(N, WIDTH))
    found[::50] = 0
    return torch.nn.functional.normalize(torch.from_numpy(found.astype(np.float32)))


def edges(unit: torch.Tensor, items: np.ndarray) -> dict[tuple[int, int], float]:
    parts = list(nearest(unit, items, K))
    source, target, cosine = (np.concatenate(one) for one in zip(*parts, strict=True))
    assert (np.diff(source * N + target) > 0).all(), "in the order of the items and of their neighbours"
    assert np.bincount(source, minlength=len(items)).max() == K
    assert (cosine > 0).all()
    return dict(zip(zip(source.tolist(), target.tolist(), strict=True), cosine.tolist(), strict=True))


def test_an_index_finds_nearly_all_that_all_products_find(monkeypatch: pytest.MonkeyPatch) -> None:
    unit, items = vectors(), np.arange(N)[::-1][:2500].copy()
    exact = edges(unit, items)
    monkeypatch.setattr(module, "EXACT", 1000)
    found = edges(unit, items)
    assert not any(items[source] == target for source, target in found), "none is its own neighbour"
    assert not {items[source] for source, _ in found} & set(range(0, N, 50)), "nothing is near to what has no text"
    both = found.keys() & exact.keys()
    assert len(both) > 0.95 * len(exact)
    assert [found[edge] for edge in both] == pytest.approx([exact[edge] for edge in both], abs=1e-5)
