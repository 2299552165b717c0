"""The scorers by name, and how some of them are built over a catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightloom.core.recommender import Scorer
from nightloom.core.sequences import Histories
from nightloom.models.scorers.als import ALS
from nightloom.models.scorers.cooccurrence import Cooccurrence
from nightloom.models.scorers.friends import Friends
from nightloom.models.scorers.graph import TransitionGraph
from nightloom.models.scorers.item_graph import ItemGraph
from nightloom.models.scorers.linear import Linear
from nightloom.models.scorers.nearest import EXACT
from nightloom.models.scorers.newcomers import Newcomers
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.scorers.repeats import Repeats
from nightloom.models.scorers.text_neighbours import TextNeighbours, unit_of
from nightloom.models.scorers.trend import Trend

if TYPE_CHECKING:
    from nightloom.models.sequential.content_fusion import ItemContent

CLASSES: dict[str, type[Scorer]] = {
    one.family: one for one in (TransitionGraph, Cooccurrence, Linear, TextNeighbours, Popularity, Trend, Repeats, Friends, ALS)
}
"""Name -> class."""


def fit_scorers(
    names: Sequence[str],
    train: Histories,
    content: ItemContent,
    min_support: int = 1,
    *,
    reads_text: bool = True,
    near: TextNeighbours | None = None,
) -> dict[str, Scorer]:
    """Build some scorers over a catalogue.

    Args:
        names: keys of `CLASSES`.
        train: what they learn from.
        content: the catalogue, on the CPU.
        min_support: users that an edge between items must rest on; see `ItemGraph`.
        reads_text: whether texts say what is expected of items that nobody has acted on.
        near: what `near_texts` gave for this catalogue; None: it is searched where it is needed.
    """
    found: dict[str, Scorer] = {}
    for name in names:
        one = CLASSES[name]()
        if isinstance(one, TextNeighbours):
            near = one = near or one.read(content.text, content.has_text)
        elif isinstance(one, ItemGraph):
            one.min_support = min_support
        found[name] = one.fit(train, len(content))
    if reads_text:
        expect(found.values(), content, near=near)
    return found


def near_texts(names: Sequence[str], content: ItemContent, white: ItemContent | None = None) -> TextNeighbours | None:
    """Neighbours by text, which some scorers share, so that they are searched for once in a large catalogue.

    Args:
        names: keys of `CLASSES`.
        content: the catalogue.
        white: the same with whitened vectors, where there are such.

    Returns:
        None in a small catalogue, without texts, and where no scorer needs them.
    """
    needs = any(issubclass(CLASSES[name], TextNeighbours | ALS | Popularity) for name in names)
    if not needs or len(content) <= EXACT or not bool(content.has_text.any()):
        return None
    if white is None:
        return TextNeighbours().read(content.text, content.has_text)
    return TextNeighbours().read_unit(unit_of(white.text, content.has_text), content.has_text)


def expect(
    scorers: Iterable[Scorer], content: ItemContent, fresh: NDArray[np.bool_] | None = None, near: TextNeighbours | None = None
) -> None:
    """Have scorers that learn of each item by itself expect something of those that nobody has acted on (`newcomers`).

    Args:
        scorers: over the catalogue.
        content: the catalogue, on the CPU.
        fresh: bool [items], which are new to the scorers; of the others is expected what was before. None: all.
        near: see `fit_scorers`.
    """
    known: NDArray[np.bool_] | None = None
    for one in scorers:
        if isinstance(one, ALS | Popularity):
            acted_on = (one.popularity if isinstance(one, ALS) else one.counts) > 0
            if known is None or (known != acted_on).any():
                known, newcomers = acted_on, Newcomers.find(content.text, content.has_text, acted_on, fresh, near)
            one.expect(newcomers)
