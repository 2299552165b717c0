"""What /recommend answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.core.errors import InputError
from nightloom.core.pseudonyms import Pseudonyms
from nightloom.core.queries import Query
from nightloom.data.preparation.stored import look_up
from nightloom.packaging.bundle import Bundle
from tests.service_app import USERS, Worker, event, ids, make_served, name_champion
from tests.serving_bundle import EVENTS, N_ITEMS, START


def same(answer: dict[str, Any], wanted: list[tuple[str, float]]) -> None:
    """The same scores, and the same items but for ties."""
    scores = [item["score"] for item in answer["items"]]
    np.testing.assert_allclose(scores, [score for _, score in wanted], atol=1e-4)
    differ = [place for place, (item, _) in enumerate(wanted) if ids(answer)[place] != item]
    assert all(np.isclose(np.delete(scores, place), scores[place], atol=2e-4).any() for place in differ)


def test_a_history_is_answered_as_the_bundle_does(made: Path, worker: Worker) -> None:
    bundle, random = Bundle.load(made / "bundle"), np.random.default_rng(0)
    for many in (0, 1, 7, 60, 250):
        history = [f"i{item}" for item in random.integers(0, N_ITEMS, many)]
        times = np.sort(START - random.integers(0, 10**6, many)).tolist()
        names = random.choice(EVENTS, many).tolist()
        for given in ({}, {"times": times, "now": START + 50}, {"events": names, "times": times, "now": START + 50}):
            query = Query(history, given.get("times"), given.get("events"), request_time=given.get("now"))
            same(worker.ask(history=history, k=20, **given), bundle.recommend([query], 20)[0])


def test_a_stored_user_is_answered_as_the_registered_model_does(made: Path, worker: Worker) -> None:
    bundle = Bundle.load(made / "bundle")
    rules = {"keep_repeats": False, "max_user_events_per_day": 5000, "positive_min_value": None, **bundle.meta["prepare"]}
    users = [f"u{user}" for user in range(USERS)]
    stored = look_up(made / "snapshot" / "events.parquet", users, {**bundle.meta, "prepare": rules, "rare_items": []})
    for user, rows in stored.groupby("user_id"):
        lists = (rows[name].tolist() for name in ("item_id", "second", "event", "positive"))
        query = Query(*lists, request_time=START + 60)
        same(worker.ask(user_id=user, k=20, now=START + 60), bundle.recommend([query], 20)[0])


def test_pages_go_on_without_repeats(worker: Worker) -> None:
    answer, seen = worker.ask(user_id="u1", k=40), list[str]()
    while True:
        seen += ids(answer)
        if answer["next"] is None:
            break
        worker.tell(event(f"e{len(seen)}", "u1", f"i{len(seen)}"))
        answer = worker.ask(user_id="u1", k=40, page=answer["next"])
    assert len(seen) == len(set(seen))
    assert len(seen) > 100
    refused = worker("POST", "/recommend", {"user_id": "u2", "page": answer["token"]})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (409, "page")


def test_filters(made: Path, worker: Worker) -> None:
    catalogue = Bundle.load(made / "bundle").catalogue
    genres, prices = catalogue["genres"], catalogue["price"]

    def expected(passes: Any) -> set[str]:
        return {f"i{row}" for row in range(N_ITEMS) if passes((genres[row] or "").split("|"), prices[row])}

    red = {"in": {"genres": ["red"]}}
    cheap = {"range": {"price": {"max": 10}}}
    cases = [
        (red, lambda tags, _: "red" in tags),
        ({"in": {"genres": ["red", "green"]}}, lambda tags, _: "red" in tags or "green" in tags),
        ({"not": red}, lambda tags, _: "red" not in tags),
        ({"and": [red, cheap]}, lambda tags, price: "red" in tags and price <= 10),
        ({"or": [red, {"range": {"price": {"min": 11, "max": 12}}}]}, lambda tags, price: "red" in tags or 11 <= price <= 12),
        ({"in": {"genres": ["purple"]}}, lambda *_: False),
    ]
    for said, passes in cases:
        answer = worker.ask(history=[], k=N_ITEMS, filter=said, debug=True)
        assert set(ids(answer)) == expected(passes), said
        assert answer["debug"]["filter"] == len(expected(passes))
        assert answer["filled"] is False
    answer = worker.ask(history=[], k=3, filter=red, columns=["genres", "nothing"])
    assert all("red" in item["columns"]["genres"] and "nothing" not in item["columns"] for item in answer["items"])


def test_a_given_list_is_ranked_whole(worker: Worker) -> None:
    answer = worker.ask(history=["i3", "i4"], k=200, items=["i4", "i9", "gone", "i3", "i9"])
    assert sorted(ids(answer)) == ["i3", "i4", "i9"]
    assert ids(worker.ask(history=["i3", "i4"], items=["i4", "i9", "i3"], exclude_seen=True)) == ["i9"]
    assert worker.ask(history=["i3"], items=["gone"])["items"] == []


def test_the_answer_says_what_it_fell_back_on(worker: Worker) -> None:
    assert worker.ask(user_id="u1")["fallback"] is None
    assert worker.ask(user_id="nobody")["fallback"] == "unknown_user"
    assert worker.ask(history=[])["fallback"] == "empty_history"
    assert worker.ask(history=["what"])["fallback"] == "unknown_items"
    assert all(len(worker.ask(**said)["items"]) == 10 for said in ({"user_id": "nobody"}, {"history": ["what"]}))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user_id": "u1", "now": False}, "now"),
        ({"user_id": "u1", "k": 0}, "k"),
        ({"user_id": "u1", "k": 201}, "k"),
        ({"user_id": "u1", "k": "5"}, "k"),
        ({"user_id": "u1", "k": 2.5}, "k"),
        ({"user_id": "u1", "k": True}, "k"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": "a\0b"}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"history": ["i1", 2]}, "history.1"),
        ({"history": ["i1"] * 2001}, "history"),
        ({"history": [], "filter": {}}, "filter"),
        ({"history": [], "filter": {"in": {"genres": ["red"]}, "range": {"price": {}}}}, "filter"),
        ({"history": [], "filter": {"in": {"genres": "red"}}}, "filter.in.genres"),
        ({"history": [], "filter": {"and": True}}, "filter.and"),
        ({"history": [], "filter": {"not": None}}, "filter"),
        ({"history": [], "filter": {"range": {"price": {"max": "10"}}}}, "filter.range.price.max"),
        ({"history": [], "items": []}, "items"),
        ({"history": [], "more": 1}, "more"),
        ([], "body"),
    ],
    ids=str,
)
def test_bad_requests_are_refused_by_field(worker: Worker, body: Any, field: str) -> None:
    found = worker("POST", "/recommend", body)
    assert found.status_code == 422
    assert found.headers["content-type"] == "application/problem+json"
    assert [one["field"] for one in found.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"user_id": "u1", "times": []}, 409, "times"),
        ({"history": ["i1"], "times": []}, 409, "times"),
        ({"history": ["i1"], "times": [5], "now": 4}, 409, "now"),
        ({"history": ["i1"], "events": ["love"]}, 409, "events"),
        ({"history": [], "filter": {"in": {"nothing": ["red"]}}}, 409, "filter"),
        ({"history": [], "page": "forged"}, 403, "page"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused_by_field(worker: Worker, body: Any, status: int, field: str) -> None:
    found = worker("POST", "/recommend", body)
    assert (found.status_code, [one["field"] for one in found.json()["errors"]]) == (status, [field])


def test_a_history_goes_before_what_is_stored_of_the_user(worker: Worker) -> None:
    answer = worker.ask(user_id="u1", history=["i3"])
    assert answer["items"] == worker.ask(history=["i3"])["items"]
    assert worker.service.signer.read(answer["token"], "token").user == "u1"
    assert worker.ask()["items"] == worker.ask(history=[])["items"]


def test_a_filter_is_not_nested_without_end(worker: Worker) -> None:
    said: dict[str, Any] = {"in": {"genres": ["red"]}}
    for _ in range(200):
        said = {"not": said}
    found = worker("POST", "/recommend", {"history": [], "filter": said})
    assert (found.status_code, found.json()["errors"][0]["field"]) == (422, "filter")


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b'{"user_id": "\\ud800"}', b"[" * 10_000])
def test_broken_bodies_are_refused(worker: Worker, body: bytes) -> None:
    found = worker("POST", "/recommend", content=body, headers={"content-type": "application/json"})
    assert found.status_code in (400, 422)
    assert found.headers["content-type"] == "application/problem+json"


def test_similar_items(worker: Worker) -> None:
    found = worker("GET", "/similar", params={"items": ["i5", "i6"], "k": 7}).json()
    assert len(found["items"]) == 7
    assert not {"i5", "i6"} & set(ids(found))
    assert worker("GET", "/similar", params={"items": "gone"}).status_code == 404
    assert worker("GET", "/similar").status_code == 422


def test_a_whole_number_may_be_written_with_a_point(worker: Worker) -> None:
    assert worker.ask(user_id="u1", k=3.0, now=float(START))["items"] == worker.ask(user_id="u1", k=3, now=START)["items"]


def test_people_are_stored_by_pseudonyms_where_the_snapshot_holds_those(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", "a key of enough letters")
    of = Pseudonyms(b"a key of enough letters")
    made = make_served(tmp_path / "made")
    events = pd.read_parquet(made / "snapshot" / "events.parquet")
    plain = events[events["user_id"] == "u3"]["item_id"]
    events.assign(user_id=events["user_id"].map(of)).to_parquet(made / "snapshot" / "events.parquet", index=False)
    said = {"hash": "d" * 64, "source": {"pseudonyms": of.fingerprint}}
    (made / "snapshot" / "snapshot.json").write_text(json.dumps(said))
    name_champion(tmp_path, made)
    with Worker(tmp_path) as worker:
        assert worker.ask(user_id="u3")["fallback"] is None
        assert {one["item_id"] for one in worker("GET", "/users/u3").json()["events"]} == set(plain)
        worker.tell(event("e1", "person-eve", "i5"))
        answered = worker.ask(user_id="person-eve")
        assert answered["fallback"] is None
        sent = {"feedback_id": "f1", "kind": "click", "token": answered["token"], "item_id": ids(answered)[0], "timestamp": START + 20}
        assert worker("POST", "/feedback", {**sent, "user_id": "person-eve"}).status_code == 200
        assert worker("POST", "/feedback", {**sent, "feedback_id": "f2", "user_id": "person-ann"}).status_code == 409
        held = b"".join(path.read_bytes() for path in tmp_path.glob("shop*.db*"))
        assert b"person-eve" not in held
        assert of("person-eve").encode() in held
        assert worker("DELETE", "/users/person-eve").json()["rows"] >= 2
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", "another key of letters")
    with pytest.raises(InputError, match="made by the key"), Worker(tmp_path):
        pass
