"""Words of titles: which are told apart at all."""

from __future__ import annotations

import pytest

from nightloom.explain.title_tokens import has_words


@pytest.mark.parametrize(
    ("text", "told"), [("Toy Story", True), ("alpha", False), ("", False), (None, False), ("-- !", False), ("m*a*s*h", True)]
)
def test_one_word_alone_is_not_explained(text: str | None, told: bool) -> None:
    assert has_words(text) is told
