"""Suspects are listed with a reason, and a classifier of one's own is found by its path."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nightloom.core.errors import InputError
from nightloom.core.suspects import by_classifier, by_words, classifier_of

ITEMS = [("i1", {"title": "To Kill a Mockingbird", "year": 1962}), ("i2", {"title": "Skills"}), ("i3", {"title": "网上赌博"})]


def long_titles(texts: Sequence[str]) -> list[float]:
    return [min(len(text) / 20, 1) for text in texts]


def one_score(texts: Sequence[str]) -> list[float]:
    return [1.0]


def test_by_words() -> None:
    found = list(by_words(ITEMS, ["KILL", "", "赌博"]))
    assert [(one.item_id, one.why) for one in found] == [("i1", "the word 'kill' in title"), ("i3", "the word '赌博' in title")]
    assert found[0].text == "To Kill a Mockingbird | 1962"


def test_by_a_classifier_of_ones_own() -> None:
    classify = classifier_of("tests.unit.core.test_suspects:long_titles")
    assert [(one.item_id, one.why) for one in by_classifier(ITEMS, classify, 0.9)] == [("i1", "score 1.000")]
    with pytest.raises(InputError, match="1 scores for 3 texts"):
        list(by_classifier(ITEMS, classifier_of("tests.unit.core.test_suspects:one_score"), 0.5))
    for path in ("tests.unit.core.test_suspects", "no.such.module:f", "tests.unit.core.test_suspects:ITEMS", "nightloom:none"):
        with pytest.raises(InputError, match=r"Write package\.module:function"):
            classifier_of(path)
