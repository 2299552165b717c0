"""Business rules: each does what it says, no more, and the answer says what it did."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nightloom.core.errors import InputError
from nightloom.packaging.bundle import Bundle
from nightloom.serving.business_rules import read_rules
from tests.service_app import Worker, ids
from tests.serving_bundle import N_ITEMS, START

RED = {"in": {"genres": ["red"]}}


@pytest.fixture
def tags(made: Path) -> dict[str, list[str]]:
    """Genres of each item."""
    cells = Bundle.load(made / "bundle").catalogue["genres"]
    return {f"i{row}": (cell or "").split("|") if cell else [] for row, cell in enumerate(cells)}


def test_a_pin_stands_at_its_place_on_every_page(worker: Worker) -> None:
    plain = ids(worker.ask(history=["i1"], k=15))
    late = plain[-1]
    rules = [{"name": "first", "pin": [late], "at": 2}, {"name": "second", "pin": ["i99", "gone", "i98"], "at": 7}]
    page = worker.ask(history=["i1"], k=5, rules=rules, debug=True)
    rest = [item for item in plain if item not in (late, "i99", "i98")]
    assert ids(page) == [rest[0], late, *rest[1:4]]
    assert page["items"][1]["pinned"] == "first"
    assert [sorted(item) for item in page["items"] if "pinned" not in item] == [["item_id", "score", "title"]] * 4
    assert page["debug"]["rules"] == [
        {"rule": "first", "kind": "pin", "source": "request", "matched": 1, "items": [late]},
        {"rule": "second", "kind": "pin", "source": "request", "matched": 2, "items": []},
    ]
    after = worker.ask(history=["i1"], k=5, rules=rules, page=page["next"])
    assert ids(after) == [rest[4], "i99", "i98", *rest[5:7]]
    scores = {item["item_id"]: item["score"] for item in worker.ask(history=["i1"], k=N_ITEMS)["items"]}
    assert [item["score"] for item in page["items"]] == pytest.approx([scores[item] for item in ids(page)], abs=1e-3)


def test_no_rule_brings_back_what_is_left_out(worker: Worker, tags: dict[str, list[str]]) -> None:
    blue = next(item for item, found in tags.items() if "red" not in found)
    rules = [{"name": "pins", "pin": ["i1", blue, "i5"]}, {"name": "more", "boost": {"not": RED}, "by": 50}]
    answer = worker.ask(history=["i1"], k=20, filter=RED, rules=rules)
    assert all("red" in tags[item] for item in ids(answer))
    assert "i1" not in ids(worker.ask(history=["i1"], rules=rules))
    assert ids(worker.ask(history=["i1"], items=["i5", "i6"], rules=rules))[0] == "i5"
    assert set(ids(worker.ask(history=["i1"], items=["i5", "i6"], rules=rules))) == {"i5", "i6"}
    worker("DELETE", "/items/i5")
    assert "i5" not in ids(worker.ask(history=["i1"], rules=rules))


def test_a_boost_adds_to_scores_and_what_is_buried_comes_last(worker: Worker, tags: dict[str, list[str]]) -> None:
    plain = worker.ask(history=["i1"], k=N_ITEMS)["items"]
    boosted = worker.ask(history=["i1"], k=N_ITEMS, rules=[{"name": "red", "boost": RED, "by": 0.5}], debug=True)
    lifted = sorted(plain, key=lambda item: -(item["score"] + 0.5 * ("red" in tags[item["item_id"]])))
    assert ids(boosted) == [item["item_id"] for item in lifted]
    assert {item["item_id"]: item["score"] for item in boosted["items"]} == pytest.approx(
        {item["item_id"]: item["score"] for item in plain}, abs=1e-4
    )
    red = sum("red" in found for found in tags.values())
    assert boosted["debug"]["rules"][0]["matched"] == red
    buried = worker.ask(history=["i1"], k=5, rules=[{"name": "no red", "bury": RED}], debug=True)
    assert ids(buried) == [item["item_id"] for item in plain if "red" not in tags[item["item_id"]]][:5]
    assert buried["debug"]["rules"][0]["items"] == [item["item_id"] for item in plain[:5] if "red" in tags[item["item_id"]]]
    whole = ids(worker.ask(history=["i1"], k=N_ITEMS, rules=[{"name": "no red", "bury": RED}]))
    last = [item["item_id"] for item in plain if "red" in tags[item["item_id"]]]
    assert whole[-len(last) :] == last


def test_a_cap_holds_for_each_value_and_fills_the_list_where_it_can(worker: Worker, tags: dict[str, list[str]]) -> None:
    plain = ids(worker.ask(history=["i1"], k=N_ITEMS))
    rules = [{"name": "variety", "cap": "genres", "most": 2}, {"name": "pin", "pin": [next(one for one in plain if "red" in tags[one])]}]
    answer = worker.ask(history=["i1"], k=12, rules=rules, debug=True)
    counts = Counter(tag for item in ids(answer) for tag in tags[item])
    assert counts == {"red": 2, "blue": 2} | ({"green": counts["green"]} if counts["green"] else {})
    assert counts["green"] <= 2
    wanted, seen = list[str](), Counter[str]()
    for item in [ids(answer)[0], *(one for one in plain if one != ids(answer)[0])]:
        if all(seen[tag] < 2 for tag in tags[item]) and len(wanted) < 12:
            wanted.append(item)
            seen.update(tags[item])
    assert ids(answer) == wanted
    passed = answer["debug"]["rules"][0]["items"]
    assert passed
    assert not set(passed) & set(ids(answer))
    everything = worker.ask(history=["i1"], k=200, rules=rules)
    assert everything["filled"] is False
    assert max(Counter(tag for item in ids(everything) for tag in tags[item]).values()) == 2


def test_a_schedule(worker: Worker) -> None:
    rule = {"name": "week", "pin": ["i77"], "from": START, "until": "2023-11-21T22:13:20Z"}  # a week later
    for now, holds in ((START - 1, False), (START, True), (START + 7 * 86_400 - 1, True), (START + 7 * 86_400, False)):
        assert (ids(worker.ask(history=["i1"], now=now, rules=[rule]))[0] == "i77") == holds
    assert ids(worker.ask(history=["i1"], rules=[rule]))[0] != "i77", "it is over now"


@pytest.mark.parametrize(
    ("rule", "status", "field"),
    [
        ({"name": "x"}, 422, "rules.0"),
        ({"name": "x", "pin": ["i1"], "bury": RED}, 422, "rules.0"),
        ({"pin": ["i1"]}, 422, "rules.0.pin.name"),
        ({"name": "x", "boost": RED}, 422, "rules.0.boost.by"),
        ({"name": "x", "boost": RED, "by": "1"}, 422, "rules.0.boost.by"),
        ({"name": "x", "cap": "genres", "most": 0}, 422, "rules.0.cap.most"),
        ({"name": "x", "pin": ["i1"], "most": 3}, 422, "rules.0.pin.most"),
        ({"name": "x", "pin": ["i1"], "from": "tomorrow"}, 422, "rules.0.pin.from"),
        ({"name": "x", "pin": ["i1"], "from": 7, "until": 7}, 409, "rules.0.until"),
        ({"name": "x", "cap": "colour", "most": 2}, 409, "rules"),
        ({"name": "x", "bury": {"in": {"colour": ["red"]}}}, 409, "filter"),
    ],
    ids=str,
)
def test_bad_rules_are_refused_by_field(worker: Worker, rule: dict[str, Any], status: int, field: str) -> None:
    found = worker("POST", "/recommend", {"history": [], "rules": [rule]})
    assert (found.status_code, [one["field"] for one in found.json()["errors"]]) == (status, [field])


FILE = """
rules:
  - {name: top, pin: [i42], from: 2020-01-01T00:00:00Z}
  - {name: other catalogue, cap: colour, most: 1}
"""


def test_the_services_own_rules_and_their_change(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(FILE)
    with Worker(home, rules=path) as worker:
        answer = worker.ask(history=["i1"], debug=True, rules=[{"name": "mine", "pin": ["i43"], "at": 1}])
        assert ids(answer)[:2] == ["i42", "i43"]
        told = {one["rule"]: one for one in answer["debug"]["rules"]}
        assert [told[name]["source"] for name in ("top", "mine")] == ["service", "request"]
        assert "colour" in told["other catalogue"]["problem"]
        path.write_text("rules: [{name: top, pin: i42}]")
        worker.rest(0.6)
        assert ids(worker.ask(history=["i1"]))[0] == "i42", "the former rules stay"
        assert "rules_refused" in worker("GET", "/readyz").json()
        assert "nightloom_business_rules_refused 1.0" in worker("GET", "/metrics").text
        path.write_text("rules: [{name: top, pin: [i44]}]")
        os.utime(path, (1, 1))
        worker.rest(0.6)
        assert ids(worker.ask(history=["i1"]))[0] == "i44"
        assert "rules_refused" not in worker("GET", "/readyz").json()
        path.unlink()
        worker.rest(0.6)
        assert ids(worker.ask(history=["i1"]))[0] == "i44"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [{name: a, pin: i1}]", "rules.0.pin.pin"),
        ("rule: []", "rule: Extra"),
        ("- 1", "valid"),
        ("{", "can not be read"),
        ("rules: [{name: a, pin: [i1], from: 2020-01-01}]", "rules.0.pin.from"),
        (None, "can not be read"),
    ],
)
def test_a_broken_file_is_refused_by_field(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "rules.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_rules(path)
