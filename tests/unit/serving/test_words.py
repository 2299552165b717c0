# ruff: noqa: RUF001
"""Words are equal however they are written, in any script."""

from __future__ import annotations

import pytest

from nightloom.serving.search.word_index import WordIndex
from nightloom.serving.search.words import indexed, words_of

KINDS = {"title": "text", "genres": "tags", "made_in": "category", "year": "number", "plot": "text"}


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("Amélie", "AMELIE"),
        ("Amelie", "ame\u0301lie"),
        ("Schindler's List", "schindlers list"),
        ("Schindler’s List", "Schindler's"),
        ("L'amour", "amour"),
        ("Straße nach Süden", "STRASSE suden"),
        ("Ｗide ｓigns 42", "wide signs 42"),
        ("Ο Βασιλιάς", "ΒΑΣΙΛΙΑΣ"),
        ("Москва слезам не верит", "МОСКВА Слезам"),
        ("東京物語", "東京"),
        ("東京物語", "物語"),
        ("霸王别姬", "霸"),
        ("となりのトトロ", "トトロ"),
        ("부산행", "부산행"),
        ("हिन्दी फ़िल्म", "हिन्दी"),
        ("The Matrix", "matrix, the"),
    ],
)
def test_a_title_is_found_by_its_words(title: str, query: str) -> None:
    index = WordIndex(KINDS, "|", "title")
    index.put(0, {"title": "something else"})
    index.put(1, {"title": title})
    assert index.match(query + " ").whole.tolist() == [False, True], (words_of(query), indexed(title))


def test_pairs_of_signs_hold_unspaced_words_apart() -> None:
    assert words_of("東京物語") == ["東京", "京物", "物語"]
    assert words_of("猫") == ["猫"]
    assert words_of("猫 and 犬") == ["猫", "and", "犬"]
    assert words_of("a A á ?! --") == ["a"]
    index = WordIndex(KINDS, "|", "title")
    index.put(0, {"title": "東京物語"})
    assert not index.match("東物 ").whole.any()


def put(*items: dict[str, object]) -> WordIndex:
    index = WordIndex(KINDS, "|", "title")
    for dense, columns in enumerate(items):
        index.put(dense, columns)
    return index


def test_the_title_itself_is_told_from_one_that_holds_the_words() -> None:
    index = put({"title": "Star Wars"}, {"title": "Star Wars: A New Day"}, {"title": "Star Trek"}, {"title": None, "genres": "Star|Wars"})
    found = index.match("star wars")
    assert found.title.tolist() == [True, False, False, False]
    assert found.whole.tolist() == [True, True, False, True]
    assert found.share[0] == pytest.approx(1)
    assert 0 < found.share[2] < found.share[3] < found.share[1]


def test_attributes_count_descriptions_do_not() -> None:
    index = put(
        {"title": "A", "genres": ["Comedy"], "year": 1995.0, "plot": "an old comedy of 1995"}, {"title": "B", "plot": "a comedy of 1995"}
    )
    assert index.match("comedy 1995 ").whole.tolist() == [True, False]
    assert not index.match("1995.0 ").whole.any()
    assert not index.match("true ").share.any()


def test_rare_words_count_more() -> None:
    index = put({"title": "the heat"}, {"title": "the dog"}, {"title": "the cat"}, {"title": "heat wave"})
    found = index.match("the wave ")
    assert found.share[3] > found.share[0]


def test_the_last_word_may_be_only_begun() -> None:
    index = put({"title": "Toy Story"}, {"title": "Toys"}, {"title": "A toyshop story"})
    assert index.match("toy sto").whole.tolist() == [True, False, False]
    found = index.match("toy")
    assert found.whole.all()
    assert found.title.tolist() == [False, False, False]
    assert found.share[0] > found.share[1]
    assert index.match("toy ").whole.tolist() == [True, False, False]


def test_what_is_said_anew_replaces_what_was() -> None:
    index, before = put({"title": "Old name", "genres": "Drama"}, {"title": "Other"}), {"title": "Old name", "genres": "Drama"}
    index.put(0, {"title": "New name", "genres": "Crime"}, before)
    for query, there in (("old", False), ("drama", False), ("new", True), ("crime", True), ("name", True)):
        assert index.match(query).share[0].astype(bool) == there, query
    assert index.match("new name ").title.tolist() == [True, False]


def test_many_new_words_are_found_by_their_beginning() -> None:
    index = put(*({"title": f"word{number}"} for number in range(1500)))
    assert index.match("word149").whole.sum() == 11


@pytest.mark.parametrize("query", ["", " ", "!!!", "\u0301", "🙂"])
def test_a_query_without_words_matches_nothing(query: str) -> None:
    found = put({"title": "heat"}).match(query)
    assert not found.whole.any()
    assert not found.share.any()
