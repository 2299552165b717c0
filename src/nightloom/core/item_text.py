"""The text of an item that a language model reads: by night for a whole catalogue, by day for one item. Needs no library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

EXACT = 2.0**53
"""Whole floats below it are written without a fraction."""


def compose(cells: Mapping[str, Any], kinds: Mapping[str, str], tags_separator: str = "|") -> str | None:
    """Text columns, then categories and tags in words, such as "Toy Story (1995). genres: Animation, Comedy".

    Args:
        cells: column -> value; what is missing is left out, None or NaN.
        kinds: item column -> text, category, tags, number, image or ignore; parts come in its order.
        tags_separator: what separates the values of a tags cell that is a string.

    Returns:
        The text; None where there is neither text nor category nor tag.
    """
    parts = [
        stripped
        for column, kind in kinds.items()
        if kind == "text" and not missing(cell := cells.get(column)) and (stripped := _spelt(cell, tags_separator).strip().rstrip(" ."))
    ]
    for column, kind in kinds.items():
        if kind in ("category", "tags") and (words := values_of(cells.get(column), kind, tags_separator)):
            parts.append(f"{column.replace('_', ' ')}: {', '.join(dict.fromkeys(words))}")
    return ". ".join(parts) or None


def values_of(cell: Any, kind: str, tags_separator: str = "|") -> list[str]:
    """The values of a category or tags cell, without blanks around them; none where it is missing."""
    if missing(cell):
        return []
    given: Iterable[Any] = [cell]
    if kind == "tags":
        given = cell.split(tags_separator) if isinstance(cell, str) else cell if _listed(cell) else [cell]
    return [word for value in given if not missing(value) and (word := _spelt(value, tags_separator).strip())]


def missing(cell: Any) -> bool:
    """Whether a cell says nothing: None or NaN."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _listed(cell: Any) -> bool:
    return hasattr(cell, "__iter__") and not isinstance(cell, str | bytes)


def _spelt(cell: Any, separator: str) -> str:
    """A cell as text, as stage collect writes it."""
    if _listed(cell):
        return separator.join(_spelt(part, separator) for part in cell if not missing(part))
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() and abs(cell) < EXACT else str(cell)
