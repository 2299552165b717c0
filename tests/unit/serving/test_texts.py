"""Texts by day: a new item's text counts at once, and items are asked for in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.core.queries import Query
from nightloom.data.preparation.items import compose_text
from nightloom.encoders.text import TextEncoder
from nightloom.encoders.vectors import Vectors
from nightloom.packaging.bundle import Bundle
from nightloom.serving.items.fresh_items import FAMILIAR
from nightloom.serving.live import LiveModel
from nightloom.serving.model.ranker import Answer, Ranker
from nightloom.serving.new_place import NEW_AT
from nightloom.serving.search.search import KINDS
from tests.service_app import Worker, event, ids, make_served, name_champion
from tests.serving_bundle import N_ITEMS, START
from tests.tiny_models import tiny_bert

NEW = {"title": "Dark king of the lost city", "genres": "red|green", "price": 12.5}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A champion whose texts are read."""
    folder = tmp_path_factory.mktemp("read")
    return make_served(folder, encoder=str(tiny_bert(folder / "bert")), reranker=True)


@pytest.fixture
def home(read: Path, tmp_path: Path) -> Path:
    name_champion(tmp_path, read)
    return tmp_path


@pytest.fixture
def worker(home: Path) -> Iterator[Worker]:
    with Worker(home) as found:
        yield found


def model_of(worker: Worker) -> LiveModel:
    """What it answers from, as far as anything was written."""
    return worker.service.model


def test_a_new_items_text_counts_at_once_in_every_worker(home: Path) -> None:
    with Worker(home) as one, Worker(home) as other:
        assert one("PUT", "/items/fresh", NEW).json()["text"] is True
        assert one("PUT", "/items/blank", {"price": 1}).json()["text"] is False
        for worker in (one, other):
            model = model_of(worker)
            dense = model.items.place("fresh")
            assert dense == N_ITEMS
            edges = model.engine.members["text_neighbours"].edges  # type: ignore[attr-defined]
            assert len(edges.row(dense)[0])
            assert worker("GET", "/search", params={"q": "the lost city dark king"}).json()["items"][0]["item_id"] == "fresh"


def test_its_vector_is_that_of_the_night(worker: Worker, read: Path) -> None:
    """Text, tags and price as stage prepare composes them, read by the night's own encoder, fused by the night's own network."""
    worker("PUT", "/items/fresh", NEW)
    bundle = Bundle.load(read / "bundle")
    row = pd.DataFrame([{"item_id": "fresh", **NEW, "text": None}]).astype(object)
    items = pd.concat([bundle.items, row], ignore_index=True)
    items["text"] = compose_text(items, bundle.spec.kinds)
    assert items["text"].iloc[-1] == "Dark king of the lost city. genres: red, green"
    vector = TextEncoder.load(str(read / "bert")).encode([items["text"].iloc[-1]])
    given = np.zeros((N_ITEMS + 1, vector.shape[1]), np.float32)
    given[-1] = vector
    wanted: Any = bundle.reindex(items, Vectors.of_text(given, np.arange(N_ITEMS + 1) == N_ITEMS))
    np.testing.assert_allclose(model_of(worker).engine.catalogue.vectors[-1], wanted.item_vectors().numpy()[-1], atol=1e-4)


def test_a_copy_that_is_put_is_expected_to_do_as_the_original(worker: Worker) -> None:
    popularity: Any = model_of(worker).engine.members["popularity"]
    best = int(np.argmax(popularity.values))
    columns = worker("GET", f"/items/i{best}").json()["columns"]
    assert worker("PUT", "/items/copy", columns).json()["text"] is True
    model = model_of(worker)
    dense = model.items.place("copy")
    assert dense == N_ITEMS
    assert popularity.values[dense] == pytest.approx(popularity.values[best], rel=0.01)


def test_what_is_said_anew_is_read_anew(worker: Worker) -> None:
    worker("PUT", "/items/fresh", NEW)
    before = model_of(worker).engine.catalogue.vectors[-1].copy()
    assert worker("PATCH", "/items/fresh", {"title": "Toy dog"}).json()["text"] is True
    assert not np.allclose(model_of(worker).engine.catalogue.vectors[-1], before)
    assert worker("GET", "/search", params={"q": "toy dog"}).json()["items"][0]["match"] == "title"
    found = worker("GET", "/search", params={"q": "lost city king dark"}).json()["items"]
    assert all(one["match"] != "title" for one in found)
    assert worker("PUT", "/items/fresh", {"price": 3}).json()["text"] is False
    worker("DELETE", "/items/fresh")
    assert "fresh" not in ids(worker("GET", "/search", params={"q": "toy dog", "k": 200}).json())


def test_an_item_of_the_night_keeps_its_vector_and_is_found_by_its_new_title(worker: Worker) -> None:
    before = model_of(worker).engine.catalogue.vectors[7].copy()
    assert worker("PATCH", "/items/i7", {"title": "Jazz gun"}).json()["text"] is True
    np.testing.assert_array_equal(model_of(worker).engine.catalogue.vectors[7], before)
    first = worker("GET", "/search", params={"q": "jazz gun"}).json()["items"][0]
    assert (first["item_id"], first["title"], first["match"]) == ("i7", "Jazz gun", "title")
    assert 0 < first["probability"] < 1


def title_of(worker: Worker, item: str) -> str:
    return str(worker("GET", f"/items/{item}").json()["title"])


def test_titles_come_first_then_all_words_then_what_is_near(worker: Worker) -> None:
    title = title_of(worker, "i5")
    answer = worker("GET", "/search", params={"q": f"  {title.upper()}", "k": 50}).json()
    assert answer["meaning"] is True
    assert answer["items"][0]["item_id"] == "i5"
    assert answer["items"][0]["match"] == "title"
    places = [KINDS.index(one["match"]) for one in answer["items"]]
    assert places == sorted(places, reverse=True)
    assert [one["score"] for one in answer["items"]] == sorted((one["score"] for one in answer["items"]), reverse=True)
    assert len(answer["items"]) == 50
    assert worker("GET", "/search", params={"q": "i17"}).json()["items"][0]["item_id"] == "i17"
    for one in worker("GET", "/search", params={"q": "red blue", "k": 5}).json()["items"]:
        assert one["match"] == "words"
        item = worker("GET", f"/items/{one['item_id']}").json()
        assert {"red", "blue"} <= {*item["columns"].get("genres", "").split("|"), *item["title"].split()}


def test_nearness_is_that_of_the_encoder(worker: Worker, read: Path) -> None:
    """Where no word is known, order without liking is that of cosines."""
    model, words = model_of(worker), "unheard things"
    vector = model.meaning(words)
    assert vector is not None
    pool = model.search.pool(words, vector, np.ones(N_ITEMS, dtype=bool), 10)
    encoder = TextEncoder.load(str(read / "bert"))
    texts = encoder.encode([str(text) for text in Bundle.load(read / "bundle").items["text"]])
    asked = encoder.encode([words])[0]
    cosines = texts @ asked / np.linalg.norm(texts, axis=1) / np.linalg.norm(asked)
    np.testing.assert_allclose(pool.nearness, cosines[pool.items], atol=0.01)


def test_what_a_person_likes_counts(worker: Worker) -> None:
    asked = {"query": "red", "k": 10, "exclude_seen": False}
    plain, liked = ids(worker.ask(**asked)), ids(worker.ask(**asked, history=["i3", "i40", "i41"]))
    assert plain != liked
    assert worker.ask(**asked, user_id="u3")["fallback"] is None
    assert worker.ask(**asked, user_id="nobody")["fallback"] == "unknown_user"
    seen = worker.ask(query=title_of(worker, "i3"), history=["i3"], k=5)
    assert "i3" not in ids(seen)


def test_filters_lists_and_pages_hold_in_words_too(worker: Worker) -> None:
    chosen = {"in": {"genres": ["green"]}}
    assert set(ids(worker.ask(query="dark king", k=200, filter=chosen))) == set(ids(worker.ask(k=200, filter=chosen)))
    assert sorted(ids(worker.ask(query="dark king", items=["i4", "i9", "none"]))) == ["i4", "i9"]
    first = worker.ask(query="dark king", k=7)
    second = worker.ask(query="dark king", k=7, page=first["next"])
    assert len({*ids(first), *ids(second)}) == 14
    assert max(one["score"] for one in second["items"] if one["match"] == "near") <= 10
    steps = worker.ask(query="dark king", k=7, debug=True)["debug"]
    assert steps["search"] >= steps["answered"] == 7
    token = worker("GET", "/search", params={"q": "king"}).json()["token"]
    said = {"feedback_id": "f", "token": token, "kind": "click", "item_id": ids(worker("GET", "/search", params={"q": "king"}).json())[0]}
    assert worker("POST", "/feedback", said | {"timestamp": 1_700_000_100}).status_code == 200


@pytest.mark.parametrize("params", [{}, {"q": ""}, {"q": "x" * 501}, {"q": "a\nb"}, {"q": "a", "k": 0}, {"q": "a", "page": "forged"}])
def test_bad_searches_are_refused(worker: Worker, params: dict[str, Any]) -> None:
    found = worker("GET", "/search", params=params)
    assert found.status_code in (409, 422, 401, 403)
    assert found.json()["errors"] or found.json()["detail"]


def test_without_an_encoder_words_alone_count_and_the_answer_says_so(read: Path, tmp_path: Path) -> None:
    name_champion(tmp_path, read)
    champion = tmp_path / "champion.json"
    champion.write_text(champion.read_text().replace(f'"{read / "encoder"}"', "null"))
    with Worker(tmp_path) as worker:
        assert worker("PUT", "/items/fresh", NEW).json()["text"] is False
        answer = worker("GET", "/search", params={"q": "lost city king dark", "k": 200}).json()
        assert answer["meaning"] is False
        assert answer["items"][0]["item_id"] == "fresh"
        assert answer["filled"] is False
        assert answer["next"] is None
        assert worker("GET", "/search", params={"q": "unheard"}).json()["items"] == []
        assert worker.ask(query="unheard")["items"] == []


def test_an_encoder_that_can_not_be_read_is_done_without(read: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name_champion(tmp_path, read)
    champion = tmp_path / "champion.json"
    champion.write_text(champion.read_text().replace(str(read / "encoder"), str(tmp_path / "none")))
    with Worker(tmp_path) as worker:
        assert worker("GET", "/search", params={"q": "king"}).json()["meaning"] is False
    assert "reads no texts" in caplog.text


def test_versions_that_share_an_encoder_share_its_memory(home: Path) -> None:
    with Worker(home) as one, Worker(home) as other:
        assert model_of(one).encoder is model_of(other).encoder


def test_one_place_is_kept_for_what_came_by_day_and_is_near(home: Path) -> None:
    with Worker(home) as one, Worker(home) as other:
        asked: dict[str, Any] = {"history": [f"i{number}" for number in range(20)], "now": START}
        none: dict[str, Any] = {"rules": [{"name": "none", "cap": "title", "most": 200}]}
        for number in range(20):
            copied = one("GET", f"/items/i{number}").json()["columns"]
            one("PUT", "/items/fresh", copied)
            plain = other.ask(**asked, **none, k=30)["items"]
            if N_ITEMS in model_of(one).engine.near_new(Query(asked["history"]), ()) and "fresh" not in ids({"items": plain[:NEW_AT]}):
                break  # near to the person, and by itself it stands behind
        else:
            pytest.fail("each new item stands in front by itself")
        for worker in (one, other):
            found = worker.ask(**asked, k=20)["items"]
            assert [item["item_id"] for item in found[:10]] == [item["item_id"] for item in plain[:10]], "the first ten stay"
            assert [place for place, item in enumerate(found, 1) if item["item_id"] == "fresh"] == [NEW_AT]
            assert [item["item_id"] for item in found if item.get("new")] == ["fresh"]
            assert len({item["item_id"] for item in found}) == 20
            assert found[NEW_AT - 1]["score"] <= found[NEW_AT - 2]["score"], "its score is its own"
        told = one.ask(**asked, k=20, explain=True)["items"]
        assert ids({"items": told}) == ids(one.ask(**asked, k=20))
        assert told[NEW_AT - 1]["reason"]["text"]
        first = one.ask(**asked, k=10, explain=True)
        without = [item["reason"]["without"] for item in told]
        assert without[: NEW_AT - 1] == [item["reason"]["without"] for item in first["items"]], "the first ten stay"
        assert any(without)
        assert not any(without[NEW_AT - 1 :]), "places are no longer those of the scores"
        assert "fresh" not in ids(first)
        assert ids(one.ask(**asked, k=10, page=first["next"]))[0] == "fresh"
        assert not any(item.get("new") for item in one.ask(**asked, k=20, filter={"not": {"in": {"title": [copied["title"]]}}})["items"])
        assert not any(item.get("new") for item in one.ask(history=[], k=20)["items"]), "nothing is near to nobody"
        for number in range(FAMILIAR):
            one.tell(event(f"f{number}", f"someone {number}", "fresh"))
        assert not any(item.get("new") for item in other.ask(**asked, k=20)["items"]), "by now it is known"


def test_an_item_that_is_taken_away_leaves_its_place(worker: Worker) -> None:
    known = worker("GET", "/items/i3").json()["columns"]
    for name in ("fresh", "fresher"):
        worker("PUT", f"/items/{name}", known)
    engine = model_of(worker).engine
    assert list(engine.near_new(Query(["i3"]), ())) == [N_ITEMS + 1, N_ITEMS], "of equal ones the latest first"
    worker("DELETE", "/items/fresher")
    assert list(model_of(worker).engine.near_new(Query(["i3"]), ())) == [N_ITEMS]
    worker("PUT", "/items/fresh", {"price": 3})
    assert list(model_of(worker).engine.near_new(Query(["i3"]), ())) == []


def copy(worker: Worker, item: str, name: str) -> dict[str, Any]:
    """Put a new item that reads as another one."""
    columns: dict[str, Any] = worker("GET", f"/items/{item}").json()["columns"]
    worker("PUT", f"/items/{name}", columns)
    return columns


def test_new_items_that_may_not_be_shown_cost_nothing(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"history": ["i3", "i40", "i41"], "now": START, "k": 20}
    for number in range(12):
        columns = copy(worker, "i3", f"fresh {number}")
    calls, rank = list[int](), Ranker.rank

    def counted(ranker: Ranker, *said: Any) -> Answer:
        calls.append(1)
        return rank(ranker, *said)

    monkeypatch.setattr(Ranker, "rank", counted)
    assert [item["item_id"] for item in worker.ask(**asked)["items"] if item.get("new")] == ["fresh 11"]
    assert len(calls) == 1, "the list and its new item are ranked at once"
    kept = worker.ask(**asked, filter={"not": {"in": {"title": [columns["title"]]}}})["items"]
    assert not any(item.get("new") for item in kept)
    assert len(calls) == 2


def test_pages_put_what_the_whole_list_puts(worker: Worker) -> None:
    for number in range(30):
        copy(worker, f"i{number}", f"fresh {number}")
    in_front, put = 0, 0
    for start in range(40):
        asked = {"history": [f"i{start + number}" for number in range(5)], "now": START}
        whole = worker.ask(**asked, k=30)["items"]
        wanted = [(place, item["item_id"]) for place, item in enumerate(whole) if item.get("new")]
        for k in (7, 10, 11):
            found, page = list[dict[str, Any]](), None
            while len(found) < 30:
                answer = worker.ask(**asked, k=k, **({} if page is None else {"page": page}))
                found, page = [*found, *answer["items"]], answer["next"]
            assert [(place, item["item_id"]) for place, item in enumerate(found) if item.get("new")] == wanted, (start, k)
            assert len({item["item_id"] for item in found}) == len(found)
        in_front += any(item["item_id"].startswith("fresh") for item in whole[: NEW_AT - 1])
        put += len(wanted)
    assert in_front
    assert put
