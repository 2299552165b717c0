"""Items by day: put, changed, taken away, found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.service_app import Worker, ids


def test_a_new_item_is_recommended_at_once_by_every_worker(home: Path) -> None:
    with Worker(home) as one, Worker(home) as other:
        said = one("PUT", "/items/fresh/film", {"title": "Fresh", "genres": "red|new", "price": 3})
        assert said.json() == {
            "item_id": "fresh/film",
            "columns": {"title": "Fresh", "genres": "red|new", "price": 3},
            "version": 1,
            "text": False,
        }
        for worker in (one, other):
            answer = worker.ask(history=["i1"], k=200, filter={"in": {"genres": ["new"]}})
            assert [(item["item_id"], item["title"]) for item in answer["items"]] == [("fresh/film", "Fresh")]
            assert worker("GET", "/items", params={"q": "fresh"}).json()["items"][0]["columns"]["price"] == 3
            assert "fresh/film" in ids(worker.ask(history=["i1"], k=200))


def test_an_item_that_was_taken_away_is_not_offered(home: Path) -> None:
    with Worker(home) as one, Worker(home) as other:
        assert one("DELETE", "/items/i7").status_code == 200
        for worker in (one, other):
            assert "i7" not in ids(worker.ask(history=["i1"], k=200))
            assert worker("GET", "/items/i7").status_code == 404
            assert ids(worker.ask(history=["i1"], items=["i7", "i8"])) == ["i8"]
            assert "i7" not in ids(worker("GET", "/similar", params={"items": "i1", "k": 200}).json())
        assert one("DELETE", "/items/i7").status_code == 404
        assert one("PATCH", "/items/i7", {"price": 1}).status_code == 404
        assert one("PUT", "/items/i7", {"title": "Back"}).status_code == 200
        assert "i7" in ids(other.ask(history=["i1"], k=200))
    with Worker(home) as later:
        assert later("GET", "/items/i7").json()["columns"] == {"title": "Back"}


def test_columns_are_laid_over_those_of_the_catalogue(worker: Worker) -> None:
    before = worker("GET", "/items/i3").json()["columns"]
    assert worker("PATCH", "/items/i3", {"price": 99.5, "title": None}).status_code == 200
    assert worker("GET", "/items/i3").json() == {
        "item_id": "i3",
        "title": "i3",
        "columns": {**{name: value for name, value in before.items() if name != "title"}, "price": 99.5},
    }
    assert ids(worker.ask(history=[], k=200, filter={"range": {"price": {"min": 99}}})) == ["i3"]
    assert worker("PATCH", "/items/never", {"price": 1}).status_code == 404


def test_pages_of_the_catalogue(worker: Worker) -> None:
    found, cursor = list[str](), 0
    while cursor is not None:
        page = worker("GET", "/items", params={"limit": 40, "cursor": cursor}).json()
        found += ids(page)
        cursor = page["next"]
    assert found == [f"i{row}" for row in range(150)]
    assert ids(worker("GET", "/items", params={"q": "TITLE 14"}).json()) == ["i14", "i114", *(f"i{row}" for row in range(140, 150))]
    assert worker("GET", "/items", params={"q": "nothing"}).json() == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"price": "dear"}, 409, "price"),
        ({"price": 10**400}, 422, "price"),
        ({"title": {"en": "A"}}, 422, "title"),
        ({"title": "x" * 20_001}, 422, "title"),
        ({"x" * 513: 1}, 422, "x" * 513),
        ({f"c{n}": n for n in range(201)}, 422, "body"),
    ],
    ids=["no number", "a number beyond all", "an object", "a long text", "a long name", "many columns"],
)
def test_bad_items_are_refused_by_field(worker: Worker, body: Any, status: int, field: str) -> None:
    found = worker("PUT", "/items/i1", body)
    assert found.status_code == status
    assert found.json()["errors"][0]["field"].startswith(field)
    assert worker("GET", "/items/i1").json()["columns"]["title"] == "Title 1", "nothing was kept"
