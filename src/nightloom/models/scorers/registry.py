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
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.scorers.repeats import Repeats
from nightloom.models.scorers.text_neighbours import TextNeighbours

if TYPE_CHECKING:
    from nightloom.models.sequential.content_fusion import ItemContent

CLASSES: dict[str, type[Scorer]] = {
    one.family: one for one in (TransitionGraph, Cooccurrence, TextNeighbours, Popularity, Repeats, Friends, ALS)
}
"""Name -> class."""


def fit_scorers(names: Sequence[str], train: Histories, content: ItemContent) -> dict[str, Scorer]:
    """Build some scorers over a catalogue.

    Args:
        names: keys of `CLASSES`.
        train: what they learn from.
        content: the catalogue, on the CPU.
    """
    found: dict[str, Scorer] = {}
    for name in names:
        one = CLASSES[name]()
        if isinstance(one, TextNeighbours):
            one.read(content.text, content.has_text)
        found[name] = one.fit(train, len(content))
    return found
