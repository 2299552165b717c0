"""Words of titles, attributes and queries, in any script: equal however they are written.

Case, accents and the width of signs do not count. Scripts that set no blanks between words (Chinese, Japanese, Thai ...) are read in pairs
of signs. There are no lists of stop words and no endings of one language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

ACCENTS = re.compile("[\u0300-\u036f]")
APOSTROPHES = re.compile("['\u2019\u02bc]")
PLAIN = re.compile("[a-z0-9]+(?:['\u2019\u02bc][a-z0-9]+)*")
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")


def normal(text: str) -> str:
    """Text in one spelling."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", ACCENTS.sub("", unicodedata.normalize("NFKD", text))).casefold()


def words_of(text: str) -> list[str]:
    """The words that a query asks for, each once, in order."""
    return list(dict.fromkeys(word for raw in _raw(normal(text)) for word in _parts(raw, every=False)))


def indexed(text: str) -> set[str]:
    """The words by which a text is found: those of `words_of`, parts around an apostrophe, and single signs of unspaced scripts."""
    return {word for raw in _raw(normal(text)) for word in _parts(raw, every=True)}


def _raw(text: str) -> Iterator[str]:
    """Runs of letters, marks and digits, apostrophes inside included."""
    if text.isascii():
        yield from PLAIN.findall(text)
        return
    run: list[str] = []
    for sign in f"{text} ":
        if unicodedata.category(sign)[0] in "LMN" or (run and APOSTROPHES.match(sign)):
            run.append(sign)
        elif run:
            yield "".join(run)
            run = []


def _parts(raw: str, *, every: bool) -> Iterator[str]:
    """The words of one run."""
    first = 0
    for found in UNSPACED.finditer(raw):
        yield from _spaced(raw[first : found.start()], every)
        signs = found.group()
        yield from (left + right for left, right in pairwise(signs))
        if every or len(signs) == 1:
            yield from signs
        first = found.end()
    yield from _spaced(raw[first:], every)


def _spaced(raw: str, every: bool) -> Iterator[str]:
    joined = APOSTROPHES.sub("", raw)
    if joined:
        yield joined
        if every and joined != raw:
            yield from (part for part in APOSTROPHES.split(raw) if part)
