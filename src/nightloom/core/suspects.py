"""Items that somebody should look at before they are shown: by words, or by a classifier of one's own. Nothing is blocked by this.

A word list alone flags *To Kill a Mockingbird*; so what it finds is a list to be reviewed, and a person writes the blocklist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from nightloom.core.blocklist import Blocklist, normal
from nightloom.core.errors import InputError

Classifier = Callable[[Sequence[str]], Sequence[float]]
"""Texts -> a score for each, 0 to 1."""


@dataclass(frozen=True)
class Suspect:
    """An item to be reviewed.

    Attributes:
        item_id: its id.
        text: what was read of it.
        why: the word and the column, or the classifier's score.
    """

    item_id: str
    text: str
    why: str


def by_words(items: Iterable[tuple[str, Mapping[str, Any]]], words: Iterable[str]) -> Iterator[Suspect]:
    """Items one of whose columns holds a word; see `nightloom.core.blocklist` for what counts as one.

    Args:
        items: id and columns of each.
        words: of a list, in any spelling.
    """
    listed = Blocklist(words=frozenset(word for word in map(normal, words) if word))
    for item_id, columns in items:
        if why := listed.reason(item_id, columns):
            yield Suspect(item_id, " | ".join(map(str, columns.values())), why)


def by_classifier(items: Iterable[tuple[str, Mapping[str, Any]]], classify: Classifier, least: float) -> Iterator[Suspect]:
    """Items to which a classifier gives a score of at least `least`.

    Raises:
        InputError: it does not give one number for each text.
    """
    known = [(item_id, " | ".join(map(str, columns.values()))) for item_id, columns in items]
    scores = [float(score) for score in classify([text for _, text in known])]
    if len(scores) != len(known):
        raise InputError(f"the classifier gave {len(scores):,} scores for {len(known):,} texts. It must give one for each.")
    yield from (Suspect(item, text, f"score {score:.3f}") for (item, text), score in zip(known, scores, strict=True) if score >= least)


def classifier_of(path: str) -> Classifier:
    """A function by its import path, `package.module:function`.

    Raises:
        InputError: there is none.
    """
    module, mark, name = path.partition(":")
    try:
        found: Classifier = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"classifier {path}: it can not be imported ({error}). Write package.module:function.") from error
    if not mark or not callable(found):
        raise InputError(f"classifier {path}: no function. Write package.module:function.")
    return found
