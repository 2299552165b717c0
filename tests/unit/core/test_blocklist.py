"""Ids, values and whole words, in whatever way they are spelt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.core.blocklist import Blocklist, holds, normal
from nightloom.core.errors import InputError


def blocklist(tmp_path: Path, text: str) -> Blocklist:
    path = tmp_path / "films.yaml"
    path.write_text(text, encoding="utf-8")
    return Blocklist.read(path)


@pytest.mark.parametrize(
    ("text", "blocked"),
    [
        ("Kill Bill", True),
        ("KILL!", True),
        ("\uff4b\uff49\uff4c\uff4c bill", True),  # full width
        ("ki\u200bll", True),  # a blank that nobody sees
        ("to-kill-a", True),
        ("Skill", False),
        ("killer", False),
        ("kill3r", False),
        ("overkill", False),
        ("To k ill", False),
        ("café noir", True),
        ("cafe\u0301 noir", True),  # letter and accent apart
        ("cafes noirs", False),
        ("一个赌博网站", True),
        ("賭博", False),  # another character
        ("NEW  YORK\tcity", True),
        ("new yorker", False),
    ],
)
def test_words_count_whole(tmp_path: Path, text: str, blocked: bool) -> None:
    found = blocklist(tmp_path, "words: [kill, Café, 赌博, New York]")
    assert (found.reason("i1", {"title": text}) is not None) == blocked


def test_ids_and_values(tmp_path: Path) -> None:
    found = blocklist(tmp_path, "items: [007, i2]\nvalues: {genres: [Adult], year: [1999]}\n")
    assert found.reason("i2", {}) == "its id"
    assert found.reason("i22", {}) is None
    for genres in ("adult", "Drama|ADULT", ["Drama", "Adult"]):
        assert found.reason("i1", {"genres": genres}) == "a value of genres"
    assert found.reason("i1", {"genres": "Adulthood"}) is None
    assert found.reason("i1", {"title": "Adult"}) is None
    assert found.reason("i1", {"year": 1999.0}) == "a value of year"


@given(st.text(min_size=1))
def test_a_text_holds_itself_and_normal_texts_stay_as_they_are(text: str) -> None:
    said = normal(text)
    assert normal(said) == said
    if said:
        assert holds(said, said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word: [a]", "word is none of its keys. Write items, values, words"),
        ("- a", "list is none of its keys"),
        ("words: a", "words: write a list of texts"),
        ("words: ['']", "words: write a list of texts"),
        ("values: [a]", r"values: write column: \[value"),
        ("a: [", "can not be read"),
    ],
)
def test_what_is_none_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        blocklist(tmp_path, text)


def test_no_file_blocks_nothing(tmp_path: Path) -> None:
    assert not Blocklist.read(tmp_path / "none.yaml")
