"""A map of the item space: item vectors in the plane of their two largest principal components, for a picture that the report draws.

Vectors are taken at length one, since items are near by the angle between them. A point's place says with what the item is alike for
the model, its colour the main category; the most popular items are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.item_text import values_of

POINTS = 1_200
"""Most items of the map, the most popular ones."""
NAMED = 60
"""Most items that come with a title; the picture names those for which there is room."""
CATEGORIES = 7
"""Categories with a colour of their own."""
EDGE = 1.0
"""Percentage of the points beyond each edge of the map, where they are drawn on the edge."""


def item_map(
    vectors: NDArray[np.float32],
    popularity: NDArray[np.integer],
    titles: Sequence[str],
    column: str | None,
    categories: Sequence[Sequence[str]],
    shown: NDArray[np.bool_] | None = None,
) -> dict[str, Any] | None:
    """The map as JSON; None where there are too few items for one.

    Args:
        vectors: float32 [items, dim].
        popularity: int [items], events of each.
        titles: of each.
        column: name of the column that colours; None: there is none.
        categories: the values of each item in it, the main one first.
        shown: bool [items], what may be shown; None: all.

    Returns:
        `column`, `categories` (names by colour; the last stands for all others), `explained` (the components' shares of the variance), and
        `points`, the most popular first: `x` and `y` from 0 to 1, `category` (its place), and `title` of the first ones.
    """
    open_ = np.arange(len(vectors)) if shown is None else np.flatnonzero(shown)
    chosen = open_[np.argsort(-popularity[open_], kind="stable")][:POINTS]
    if len(chosen) < 3:
        return None
    places, explained = principal_plane(vectors[chosen])
    low, high = np.percentile(places, [EDGE, 100 - EDGE], axis=0)
    places = np.clip((places - low) / np.maximum(high - low, 1e-12), 0, 1)
    main = [categories[item][0] if categories[item] else "" for item in chosen.tolist()]
    names = [name for name, _ in Counter(name for name in main if name).most_common(CATEGORIES)]
    points: list[Mapping[str, Any]] = [
        {"x": round(x, 4), "y": round(y, 4), "category": names.index(name) if name in names else len(names)}
        | ({"title": str(titles[item])} if rank < NAMED else {})
        for rank, ((x, y), name, item) in enumerate(zip(places.tolist(), main, chosen.tolist(), strict=True))
    ]
    return {"column": column, "categories": [*names, "other"], "explained": explained.tolist(), "points": points}


def principal_plane(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of vectors of length one on their first two principal components, and the components' shares of the variance."""
    unit = np.asarray(vectors, dtype=np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    centred = unit - unit.mean(0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1, 1)  # a sign that does not hang on the library
    places = centred @ axes
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places))])
    share = values[::-1][:2] / max(float(values.sum()), 1e-12)
    return places, np.maximum(share, 0)


def main_column(kinds: Mapping[str, str], items: Mapping[str, Sequence[Any]], separator: str) -> tuple[str | None, list[list[str]]]:
    """The first column of tags, else of categories, with its values of each item; no column where there is neither."""
    for wanted in ("tags", "category"):
        for name, kind in kinds.items():
            if kind == wanted and name in items:
                return name, [values_of(cell, kind, separator) for cell in items[name]]
    return None, [[] for _ in next(iter(items.values()), [])]
