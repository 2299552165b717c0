"""The map of the item space: its plane is that of a singular value decomposition, it names nothing blocked, and titles have room."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nightloom.explain.item_map import NAMED, POINTS, item_map, main_column, principal_plane
from nightloom.report.item_map import item_maps, legend


def vectors(n: int = 200, dim: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32) * np.linspace(3, 1, dim).astype(np.float32)


def test_the_plane_is_that_of_the_two_largest_components() -> None:
    given = vectors()
    places, share = principal_plane(given)
    unit = given / np.linalg.norm(given, axis=1, keepdims=True)
    centred = (unit - unit.mean(0)).astype(np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(places), np.abs(left[:, :2] * sizes[:2]), atol=1e-6)
    np.testing.assert_allclose(share, (sizes**2 / (sizes**2).sum())[:2], atol=1e-9)


def test_popular_items_are_named_and_blocked_ones_are_not_there() -> None:
    n = 300
    popularity = np.arange(n)[::-1].copy()
    titles = [f"Title {item}" for item in range(n)]
    categories = [["red", "blue"] if item % 3 else ["green"] if item % 2 else [] for item in range(n)]
    shown = np.ones(n, dtype=np.bool_)
    shown[[0, 5]] = False
    found = item_map(vectors(n), popularity, titles, "genres", categories, shown)
    assert found is not None
    assert len(found["points"]) == n - 2 <= POINTS
    named = [point["title"] for point in found["points"] if "title" in point]
    assert named == [f"Title {item}" for item in range(n) if shown[item]][:NAMED]
    assert found["categories"] == ["red", "green", "other"]
    assert {point["category"] for point in found["points"]} == {0, 1, 2}
    assert all(0 <= point[axis] <= 1 for point in found["points"] for axis in "xy")
    assert item_map(vectors(2), np.ones(2), titles, None, [[], []]) is None


def test_the_column_that_colours_is_the_first_of_tags_else_of_categories() -> None:
    items = {"title": ["a", "b"], "maker": ["ann", None], "genres": ["red|blue", ["green"]]}
    assert main_column({"title": "text", "maker": "category", "genres": "tags"}, items, "|") == ("genres", [["red", "blue"], ["green"]])
    assert main_column({"title": "text", "maker": "category"}, items, "|") == ("maker", [["ann"], []])
    assert main_column({"title": "text"}, items, "|") == (None, [[], []])


def test_titles_on_the_page_do_not_meet_and_stay_inside() -> None:
    titles = [f"一部电影 {item}" if item % 2 else f"A rather long title of film {item}" for item in range(200)]
    found = item_map(vectors(), np.arange(200)[::-1], titles, None, [[]] * 200)
    report = {"explanations": {"map": found}}
    wide, narrow = item_maps(report)
    assert (wide.kind, narrow.kind) == ("wide", "narrow")
    assert len(wide.labels) > len(narrow.labels) > 3
    for one in (wide, narrow):
        assert len(one.points) == 200
        boxes = []
        for label in one.labels:
            long = sum(1.0 if ord(letter) > 0x2E7F else 0.56 for letter in label.text) * one.size
            left = label.x if label.anchor == "start" else label.x - long
            boxes.append((left, label.y - one.size, left + long, label.y))
            assert left >= 0
            assert left + long <= one.width
        apart = [a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for a, b in combinations(boxes, 2)]
        assert all(apart)
    assert legend(report) == []
    assert item_maps({"explanations": {}}) == []


@pytest.mark.parametrize("dim", [1, 2])
def test_a_space_of_few_dimensions_has_a_map(dim: int) -> None:
    found = item_map(vectors(20, dim), np.ones(20), ["t"] * 20, None, [[]] * 20)
    assert found is not None
    assert all(np.isfinite([point["x"], point["y"]]).all() for point in found["points"])
