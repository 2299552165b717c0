"""The map of the item space as SVG: one for wide pages and one for narrow ones, whose letters stay readable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800")
"""Of categories; told apart also by who sees few colours (Okabe and Ito)."""
OTHER = "#8b8fa3"
LONGEST = 24
"""Most letters of a title."""
LETTER = 0.56
"""Width of a letter, as a share of its size."""
MARGIN = 14


@dataclass(frozen=True)
class Label:
    """A title beside its point."""

    x: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Map:
    """What a template draws.

    Attributes:
        kind: `wide` or `narrow`.
        width: of the drawing.
        height: likewise.
        size: of letters.
        points: x, y and colour of each, the least popular first.
        labels: of those for which there is room, the most popular first.
    """

    kind: str
    width: int
    height: int
    size: int
    points: Sequence[tuple[float, float, str]]
    labels: Sequence[Label]


def item_maps(report: Mapping[str, Any]) -> list[Map]:
    """The maps of a report; none where the night made none."""
    found = report["explanations"].get("map")
    if not found:
        return []
    return [_map(found, "wide", 780, 500, 12), _map(found, "narrow", 330, 400, 12)]


def legend(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(category, colour), of those that the map has."""
    found = report["explanations"].get("map")
    if not found or not found["column"]:
        return []
    used = {point["category"] for point in found["points"]}
    return [(name, colour(place, len(found["categories"]))) for place, name in enumerate(found["categories"]) if place in used]


def colour(place: int, many: int) -> str:
    """Of a category; the last of them stands for all others."""
    return COLOURS[place] if place < min(many - 1, len(COLOURS)) else OTHER


def _map(found: Mapping[str, Any], kind: str, width: int, height: int, size: int) -> Map:
    many = len(found["categories"])
    at = [(MARGIN + one["x"] * (width - 2 * MARGIN), MARGIN + (1 - one["y"]) * (height - 2 * MARGIN)) for one in found["points"]]
    points = [(round(x, 1), round(y, 1), colour(one["category"], many)) for (x, y), one in zip(at, found["points"], strict=True)]
    named = [(place, one["title"]) for place, one in zip(at, found["points"], strict=True) if one.get("title")]
    return Map(kind, width, height, size, points[::-1], _labels(named, width, height, size))


def _labels(named: Sequence[tuple[tuple[float, float], str]], width: int, height: int, size: int) -> list[Label]:
    """Titles for which there is room, right or left of their points, in the order given."""
    taken: list[tuple[float, float, float, float]] = []
    labels = []
    for (x, y), title in named:
        text = title if len(title) <= LONGEST else title[: LONGEST - 1].rstrip() + "…"
        long = sum(1.0 if ord(letter) > 0x2E7F else LETTER for letter in text) * size
        for anchor, left in (("start", x + 6), ("end", x - 6 - long)):
            box = (left - 2, y - 0.7 * size, left + long + 2, y + 0.5 * size)
            inside = box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                labels.append(Label(round(x + (6 if anchor == "start" else -6), 1), round(y + 0.35 * size, 1), text, anchor))
                break
    return labels


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
