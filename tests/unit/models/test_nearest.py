"""Neighbours of a catalogue's vectors, by all products and within cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nightloom.models.scorers import nearest as module
from nightloom.models.scorers import newcomers as newcomers_module
from nightloom.models.scorers import text_neighbours as text_module
from nightloom.models.scorers.nearest import nearest, nearest_in_cells
from nightloom.models.scorers.newcomers import Newcomers
from nightloom.models.scorers.text_neighbours import TextNeighbours

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


def test_cells_hold_nearly_all_that_all_products_find(monkeypatch: pytest.MonkeyPatch) -> None:
    unit, items = vectors(), np.arange(N)
    exact = edges(unit, items)
    monkeypatch.setattr(module, "PROBES", 8)
    monkeypatch.setattr(module, "SCORES", 5000)  # several blocks a cell
    targets, cosines = nearest_in_cells(unit.half(), K)
    there = cosines > 0
    assert not there[::50].any(), "nothing is near to what has no text"
    assert not (targets == items[:, None])[there].any(), "none is its own neighbour"
    assert not np.isin(targets[there], items[::50]).any()
    assert all((np.diff(row[kept]) > 0).all() for row, kept in zip(targets, there, strict=True))
    found = {(item, int(target)): value for item in items for target, value in zip(targets[item], cosines[item], strict=True) if value > 0}
    both = found.keys() & exact.keys()
    assert len(both) > 0.95 * len(exact)
    assert [found[edge] for edge in both] == pytest.approx([exact[edge] for edge in both], abs=2e-3)


def test_a_large_catalogue_is_searched_once_for_all_that_need_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    text, has_text, known = vectors(), torch.ones(N, dtype=torch.bool), np.arange(N) % 4 > 0
    has_text[::50] = False
    before = Newcomers.find(text, has_text, known)
    values = np.random.default_rng(1).normal(size=(N, 3))
    one_by_one = before.expect(values)
    for place in (module, text_module, newcomers_module):
        monkeypatch.setattr(place, "EXACT", 1000, raising=False)
    near = TextNeighbours().read(text, has_text)
    monkeypatch.setattr(text_module, "nearest_in_cells", None)
    after = Newcomers.find(text, has_text, known, near=near)
    np.testing.assert_array_equal(after.items, before.items)
    assert known[after.neighbours].all()
    monkeypatch.setattr(newcomers_module, "MANY", 100)
    np.testing.assert_allclose(before.expect(values), one_by_one, rtol=1e-12)
    there = after.expect(values)
    likeness = (there * one_by_one).sum(1) / np.linalg.norm(there, axis=1) / np.linalg.norm(one_by_one, axis=1)
    assert np.median(likeness) > 0.99
