"""The scorers by name, and how some of them are built over a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nightloom.core.recommender import Scorer
from nightloom.core.sequences import Histories
from nightloom.models.scorers.als import ALS
from nightloom.models.scorers.cooccurrence import Cooccurrence
from nightloom.models.scorers.friends import Friends
from nightloom.models.scorers.graph import TransitionGraph
from nightloom.models.scorers.item_graph import ItemGraph
from nightloom.models.scorers.linear import Linear
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.scorers.repeats import Repeats
from nightloom.models.scorers.text_neighbours import TextNeighbours

if TYPE_CHECKING:
    from nightloom.models.sequential.content_fusion import ItemContent

CLASSES: dict[str, type[Scorer]] = {
    one.family: one for one in (TransitionGraph, Cooccurrence, Linear, TextNeighbours, Popularity, Repeats, Friends, ALS)
}
"""Name -> class."""


def fit_scorers(names: Sequence[str], train: Histories, content: ItemContent, min_support: int = 1) -> dict[str, Scorer]:
    """Build some scorers over a catalogue.

    Args:
        names: keys of `CLASSES`.
        train: what they learn from.
        content: the catalogue, on the CPU.
        min_support: users that an edge between items must rest on; see `ItemGraph`.
    """
    found: dict[str, Scorer] = {}
    for name in names:
        one = CLASSES[name]()
        if isinstance(one, TextNeighbours):
            one.read(content.text, content.has_text)
        elif isinstance(one, ItemGraph):
            one.min_support = min_support
        found[name] = one.fit(train, len(content))
    return found
