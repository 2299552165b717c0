"""Reasons in answers: what they say was tried, and it is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightloom.client import Item, _item
from nightloom.core.queries import Query
from nightloom.packaging.bundle import Bundle
from nightloom.serving.reasons.attribution import Estimator, contributions, history_contributions
from nightloom.serving.reasons.coalitions import history_players, log_softmax
from nightloom.serving.reasons.reason_words import language_of, sentence, verb_of
from nightloom.serving.reasons.reasons import SURE, reasons
from tests.service_app import Worker, ids
from tests.serving_bundle import EVENTS, N_ITEMS, START


def some_history(events: int, seed: int = 0) -> dict[str, Any]:
    """A request's history, with times and names."""
    random = np.random.default_rng([seed, events])
    return {
        "history": [f"i{item}" for item in random.choice(N_ITEMS, events, replace=events > N_ITEMS)],
        "times": np.sort(START - random.integers(0, 10**6, events)).tolist(),
        "events": random.choice(EVENTS, events).tolist(),
        "now": START + 50,
    }


def without(said: dict[str, Any], items: list[str]) -> Query:
    """The request as a query, without the events on some items."""
    kept = [place for place, item in enumerate(said["history"]) if item not in items]
    lists = ([said[name][place] for place in kept] for name in ("history", "times", "events"))
    return Query(*lists, request_time=said["now"])


class Additive:
    """Stands for coalitions whose worth is a sum."""

    def __init__(self, worth: np.ndarray) -> None:
        self.worth, self.events, self.evaluations = worth, len(worth), 0

    def log_probabilities(self, keep: np.ndarray, items: np.ndarray) -> np.ndarray:
        self.evaluations += len(keep)
        return keep.astype(float) @ self.worth[:, items]

    def outcomes(self, keep: np.ndarray, items: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.log_probabilities(keep, items), np.ones((len(keep), len(items)), int)

    def ranks_of(self, keep: np.ndarray, rows: np.ndarray, items: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        return np.ones(len(rows), int)


@pytest.mark.parametrize("events", [1, 2, 7, 50, 80])
def test_an_additive_worth_is_found_exactly(events: int) -> None:
    worth = np.random.default_rng(events).normal(size=(events, 4))
    game: Any = Additive(worth)
    older, found = history_contributions(game, np.array([3, 0]), np.zeros(0, int))
    wanted = np.concatenate([worth[:older].sum(0, keepdims=True), worth[older:]]) if older else worth
    np.testing.assert_allclose(found.values(Estimator()), wanted[:, [3, 0]], atol=1e-9)
    assert game.evaluations <= 4 * len(wanted) + 4


def test_values_add_up_and_errors_grow_where_contributions_differ(worker: Worker) -> None:
    game = worker.service.model.engine.coalitions(without(some_history(30), []))
    _, owner = history_players(game.events, 50)
    found = contributions(game, owner, np.array([4, 9, 11]), game.history.items)
    for estimator in (Estimator(), Estimator((0.2, 0.9, 0.05), (0.1, 0.01, 0.1))):
        np.testing.assert_allclose(found.values(estimator).sum(0), found.all - found.none, atol=1e-9)
    sure, unsure = (Estimator(error=(0.1, 0.0, share)) for share in (0.0, 1.0))
    assert (found.errors(unsure) >= found.errors(sure)).all()


def test_reasons_come_with_each_item(worker: Worker) -> None:
    said = some_history(12)
    plain, answer = worker.ask(**said, k=5), worker.ask(**said, k=5, explain=True)
    assert ids(plain) == ids(answer)
    assert all("reason" not in item for item in plain["items"])
    for rank, item in enumerate(answer["items"], start=1):
        why = item["reason"]
        assert why["rank"] == rank
        assert why["text"].startswith(("Because", "Recommended for your history as a whole."))
        assert all(event["share"] > 0 and "value" not in event for event in why["events"])
        assert sum(event["share"] for event in why["events"]) == pytest.approx(1)
        assert {event["item_id"] for event in why["events"]} <= set(said["history"])
        assert [event["share"] for event in why["events"]] == sorted((event["share"] for event in why["events"]), reverse=True)


def test_analysts_get_both_signs_that_add_up(worker: Worker) -> None:
    said = some_history(12)
    answer = worker.ask(**said, k=5, explain="both")
    engine = worker.service.model.engine
    game = engine.coalitions(without(said, []))
    for item in answer["items"]:
        events, dense = item["reason"]["events"], np.array([engine.item_index[item["item_id"]]])
        worth = game.log_probabilities(np.stack([np.ones(12, bool), np.zeros(12, bool)]), dense)[:, 0]
        assert sum(event["value"] for event in events) == pytest.approx(worth[0] - worth[1], abs=1e-6)
        assert any(event["value"] < 0 for event in events)
        assert all(event["error"] > 0 for event in events)


def test_what_is_named_is_sure_and_the_item_falls_without_it(made: Path, worker: Worker) -> None:
    """Against the bundle, which knows nothing of reasons: no violation in a thousand names."""
    bundle, names = Bundle.load(made / "bundle"), 0
    engine = worker.service.model.engine
    seed = 0
    while names < 1_000:
        seed += 1
        said = some_history(int(np.random.default_rng(seed).integers(2, 45)), seed)
        answer = worker.ask(**said, k=10, explain="both")
        named = {event["item_id"] for item in answer["items"] for event in item["reason"]["events"] if event["named"]}
        dense = np.array([engine.item_index[item] for item in ids(answer)])
        asked = [without(said, []), *(without(said, [item]) for item in sorted(named))]
        worth = log_softmax(bundle.recommender.scores(bundle.histories(asked)), dense)
        for place, item in enumerate(answer["items"]):
            for event in item["reason"]["events"]:
                if event["named"]:
                    names += 1
                    assert event["value"] > SURE * event["error"]
                    assert worth[1 + sorted(named).index(event["item_id"]), place] < worth[0, place]
                    assert event["title"] in item["reason"]["text"]


def test_what_would_be_without_events_is_true(made: Path, worker: Worker) -> None:
    """Against the bundle's own lists: gone from the top where it is said, and never by one event alone where none decides."""
    bundle, told, none = Bundle.load(made / "bundle"), 0, 0
    for seed in range(12):
        said = some_history(14, seed)
        for item in worker.ask(**said, k=10, explain=True)["items"]:
            why = item["reason"]

            def rank(left_out: list[str], wanted: str = item["item_id"], said: dict[str, Any] = said) -> int:
                (answer,) = bundle.recommend([without(said, left_out)], N_ITEMS)
                hidden = {one for one, name in zip(said["history"], said["events"], strict=True) if name != "view"}
                return [one for one, _ in answer if one not in hidden].index(wanted) + 1

            if gone := why["without"]:
                told += 1
                assert rank([]) <= gone["top"] < rank(gone["items"])
                assert f"would not be in your top {gone['top']}." in why["text"]
            elif why["text"].endswith("No single event decides."):
                none += 1
                top = 5 if why["rank"] <= 5 else 10
                assert all(rank([event]) <= top for event in said["history"])
    assert told > 5
    assert none > 5


def test_languages(worker: Worker) -> None:
    said = {**some_history(12), "k": 3, "explain": True}
    chinese = worker("POST", "/recommend", said, headers={"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"}).json()
    assert all(item["reason"]["text"].startswith(("因为您", "根据您")) for item in chinese["items"])
    assert chinese["items"] == worker.ask(**said, language="zh")["items"]
    english = worker("POST", "/recommend", {**said, "language": "en"}, headers={"accept-language": "zh"}).json()
    assert english["items"] == worker.ask(**said)["items"]
    assert worker("POST", "/recommend", {**said, "language": "fr"}).status_code == 422


@pytest.mark.parametrize(
    ("header", "wanted"),
    [("", "en"), ("zh", "zh"), ("fr, zh-TW;q=0.5, en;q=0.4", "zh"), ("en;q=0.1,zh;q=0", "en"), ("*", "en"), ("zha", "en"), (";q=x", "en")],
)
def test_accept_language(header: str, wanted: str) -> None:
    assert language_of(header) == wanted


def test_an_empty_history_is_owned_up_to(worker: Worker) -> None:
    why = worker.ask(history=[], k=2, explain=True)["items"][0]["reason"]
    assert why == {
        "text": "There is no history yet: this is recommended to everybody.",
        "kind": "newcomer",
        "events": [],
        "without": None,
        "rank": 1,
    }


def test_stored_users_pages_filters_and_given_items(worker: Worker) -> None:
    first = worker.ask(user_id="u1", k=5, now=START + 60, explain=True)
    second = worker.ask(user_id="u1", k=5, now=START + 60, explain=True, page=first["next"])
    assert [item["reason"]["rank"] for item in first["items"] + second["items"]] == list(range(1, 11))
    red = worker.ask(user_id="u1", k=4, now=START + 60, explain=True, filter={"in": {"genres": ["red"]}})
    assert [item["reason"]["rank"] for item in red["items"]] == [1, 2, 3, 4]
    given = worker.ask(user_id="u1", k=3, now=START + 60, explain=True, items=["i3", "i4", "i5"])
    assert [item["reason"]["rank"] for item in given["items"]] == [1, 2, 3]


def test_under_business_rules_nothing_is_said_of_the_first_places(worker: Worker) -> None:
    said = some_history(14)
    rules = [{"name": "christmas", "pin": ["i77"], "at": 2}, {"name": "red", "boost": {"in": {"genres": ["red"]}}, "by": 0.3}]
    items = worker.ask(**said, k=5, explain=True, rules=rules)["items"]
    assert items[1]["reason"]["text"] == "Chosen by this service's editors."
    assert items[1]["reason"]["events"] == []
    assert all(item["reason"]["without"] is None for item in items)
    assert not any("top" in item["reason"]["text"] or "decides" in item["reason"]["text"] for item in items)


def test_what_is_blocked_is_not_spoken_of(worker: Worker) -> None:
    said = some_history(14)
    model = worker.service.model
    spoken = worker.ask(**said, k=5, explain=True)["items"][0]["reason"]["events"][0]
    dense = model.engine.item_index[spoken["item_id"]]
    model.items.blocked.add(dense)
    model.engine.block_item(dense, blocked=True)
    for item in worker.ask(**said, k=5, explain=True)["items"]:
        assert re.search(rf"{spoken['title']}\b", item["reason"]["text"]) is None
        assert spoken["item_id"] not in [event["item_id"] for event in item["reason"]["events"]]
        assert spoken["item_id"] not in (item["reason"]["without"] or {"items": []})["items"]


def test_too_many_to_explain_are_refused(worker: Worker) -> None:
    refused = worker("POST", "/recommend", {"history": ["i1"], "k": 51, "explain": True})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (409, "explain")
    assert worker("POST", "/recommend", {"history": ["i1"], "explain": "yes"}).status_code == 422


def test_older_events_together_are_not_named(worker: Worker) -> None:
    said = some_history(90)
    for item in worker.ask(**said, k=5, explain=True)["items"]:
        assert all(event["position"] <= 50 for event in item["reason"]["events"])


def test_a_client_reads_reasons(worker: Worker) -> None:
    (said,) = worker.ask(**some_history(12), k=1, explain="both")["items"]
    found: Item = _item(said)
    assert found.reason is not None
    assert found.reason.events[0].value == said["reason"]["events"][0]["value"]
    assert found.reason.text == said["reason"]["text"]


def test_a_game_without_players_has_no_named_event(worker: Worker) -> None:
    game = worker.service.model.engine.coalitions(Query())
    (one,) = reasons(game, np.array([3]), Estimator(), np.zeros(0, int))
    assert (list(one.named), list(one.without), one.one_decides) == ([], [], False)


def test_sentences() -> None:
    english = {"language": "en", "history": True, "one_decides": False}
    assert sentence(["A", "B"], ["watched", "watched"], [], 5, **english) == "Because you watched A and B. No single event decides."  # type: ignore[arg-type]
    assert sentence(["A", "B", "C"], ["watched", None, "read"], ["A"], 10, **english) == (  # type: ignore[arg-type]
        "Because of A, B and C in your history. Without A this would not be in your top 10."
    )
    assert sentence(["A"], ["liked"], [], 0, **english) == "Because you liked A."  # type: ignore[arg-type]
    text = "因为您看了《甲》和《乙》。如果没有《甲》，它就不会在您的前 5 名中。"  # noqa: RUF001
    assert sentence(["甲", "乙"], ["watched"] * 2, ["甲"], 5, "zh", history=True, one_decides=False) == text
    assert verb_of("rating", positive=False) is None
    assert verb_of("Purchase", positive=True) == "bought"
