"""What is blocked is in no answer of any endpoint, whatever is asked and whatever is said of it meanwhile."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightloom.core.blocklist import Blocklist
from nightloom.core.errors import InputError
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.shown import shown_mask
from tests.service_app import USERS, Worker, event, ids, make_served, name_champion
from tests.serving_bundle import EVENTS, N_ITEMS, START

BLOCKED_IDS = {f"i{item}" for item in range(0, N_ITEMS, 7)}
WORD_IDS = {"i33", "i34"}
"""Items with `Title 33` and `Title 34`."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_served(tmp_path_factory.mktemp("made"), reranker=True)


def write(home: Path, items: set[str], values: dict[str, list[str]] | None = None, words: list[str] | None = None) -> None:
    """Write the blocklist anew; its time moves also where the clock of the file system is coarse."""
    path = home / "blocked.yaml"
    path.write_text(json.dumps({"items": sorted(items), "values": values or {}, "words": words or []}))
    os.utime(path, ns=(os.stat(path).st_mtime_ns, os.stat(path).st_mtime_ns + len(items) + 1))


def blocked(made: Path, home: Path) -> set[str]:
    bundle = Bundle.load(made / "bundle")
    mask = shown_mask(bundle, Blocklist.read(home / "blocked.yaml"))
    assert mask is not None
    return {item for item, open_ in zip(bundle.item_ids, mask.tolist(), strict=True) if not open_}


def named(content: Any) -> set[str]:
    """Every item id in an answer, and every title as an id."""
    if isinstance(content, dict):
        return {name for one in content.values() for name in named(one)}
    if isinstance(content, list):
        return {name for one in content for name in named(one)}
    if isinstance(content, str):
        return {content, *(f"i{number}" for number in re.findall(r"Title (\d+)", content))}
    return set()


ITEM = st.integers(0, N_ITEMS + 3).map(lambda item: f"i{item}")
HISTORY = st.lists(ITEM, max_size=12)
ASKED = st.one_of(
    st.fixed_dictionaries(
        {"k": st.integers(1, 200)},
        optional={
            "history": HISTORY,
            "exclude_seen": st.booleans(),
            "items": st.lists(ITEM, min_size=1, max_size=20),
            "columns": st.just(["title", "genres"]),
            "debug": st.booleans(),
            "filter": st.just({"in": {"genres": ["blue"]}}),
            "rules": st.lists(ITEM, min_size=1, max_size=9).map(lambda pins: [{"name": "pins", "pin": pins}]),
        },
    ).map(lambda body: ("POST", "/recommend", body)),
    st.fixed_dictionaries(
        {"history": HISTORY, "k": st.integers(1, 50), "explain": st.sampled_from([True, "both"]), "exclude_seen": st.booleans()},
        optional={"language": st.sampled_from(["en", "zh"]), "query": st.sampled_from(["title", "Title 33", "red", "i7"])},
    ).map(lambda body: ("POST", "/recommend", body)),
    st.tuples(st.integers(0, USERS), st.sampled_from([False, True, "both"])).map(
        lambda one: ("POST", "/recommend", {"user_id": f"u{one[0]}", "k": 50 if one[1] else 200, "explain": one[1]})
    ),
    st.tuples(st.sampled_from(["title", "Title%2033", "red", "i7", "blue"]), st.integers(0, USERS)).map(
        lambda one: ("GET", f"/search?q={one[0]}&user_id=u{one[1]}&k=200", None)
    ),
    ITEM.map(lambda item: ("PATCH", f"/items/{item}", {"price": 3.5})),
    st.lists(ITEM, min_size=1, max_size=4).map(lambda seeds: ("GET", f"/similar?k=200&{'&'.join(f'items={one}' for one in seeds)}", None)),
    st.sampled_from(["", "title", "33", "i"]).map(lambda words: ("GET", f"/items?q={words}&limit=200", None)),
    ITEM.map(lambda item: ("GET", f"/items/{item}", None)),
    st.integers(0, USERS).map(lambda user: ("GET", f"/users/u{user}?limit=200", None)),
)


def test_no_endpoint_names_what_is_blocked(made: Path, tmp_path: Path) -> None:
    name_champion(tmp_path, made)
    write(tmp_path, BLOCKED_IDS, {"genres": ["RED"]}, ["title 33", "Title 34"])
    gone = blocked(made, tmp_path)
    assert gone > BLOCKED_IDS | WORD_IDS
    assert len(gone) < N_ITEMS - 20
    with Worker(tmp_path, blocklist=tmp_path / "blocked.yaml") as worker:
        answered = dict[str, int]()

        @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(ASKED)
        def asked(request: tuple[str, str, Any]) -> None:
            method, path, body = request
            found = worker(method, path, body)
            if found.status_code != 200:
                return
            kind = path.split("?")[0].split("/")[1]
            answered[kind] = answered.get(kind, 0) + 1
            content = found.json()
            if method == "PATCH":  # it says the id that was asked for, and nothing of a blocked item
                content = content["columns"]
            if kind == "users":  # what a person did is the person's; it has no title
                content = [{**one, "item_id": ""} for one in content["events"]]
            assert not named(content) & gone, path

        asked()
        assert answered["recommend"] > 20
        assert min(answered.get(kind, 0) for kind in ("items", "users", "similar", "search")) > 5


def test_what_is_said_of_an_item_by_day_is_looked_at(made: Path, tmp_path: Path) -> None:
    name_champion(tmp_path, made)
    write(tmp_path, set(), words=["casino", "赌博"])
    with Worker(tmp_path, blocklist=tmp_path / "blocked.yaml") as worker:
        for item, title in (("new1", "The ＣＡＳＩＮＯ"), ("new2", "网上赌博"), ("new3", "Casinos"), ("i5", "my casino")):  # noqa: RUF001
            assert worker("PUT", f"/items/{item}", {"title": title}).status_code == 200
        worker.tell(event("e1", "ann", "i5", EVENTS[1]))
        found = set(ids(worker.ask(history=["i9"], k=200, exclude_seen=False)))
        assert "new3" in found
        assert not found & {"new1", "new2", "i5"}
        assert worker("GET", "/items/new1").status_code == 404
        assert worker("PUT", "/items/i5", {"title": "my garden"}).status_code == 200
        assert "i5" in ids(worker.ask(history=["i9"], k=200, exclude_seen=False))


def test_the_file_is_followed_and_a_broken_one_changes_nothing(made: Path, tmp_path: Path) -> None:
    name_champion(tmp_path, made)
    write(tmp_path, {"i1"})
    with Worker(tmp_path, blocklist=tmp_path / "blocked.yaml") as worker:
        whole = ids(worker.ask(history=["i9"], k=200))
        assert "i1" not in whole
        write(tmp_path, {"i1", "i2", "i3"})
        assert set(whole) - set(ids(worker.ask(history=["i9"], k=200))) == {"i2", "i3"} & set(whole)
        (tmp_path / "blocked.yaml").write_text("words: nothing that is a list")
        assert "i2" not in ids(worker.ask(history=["i9"], k=200))
        (tmp_path / "blocked.yaml").unlink()
        assert "i1" in ids(worker.ask(history=["i9"], k=200))
    (tmp_path / "blocked.yaml").write_text("words: nothing that is a list")
    with pytest.raises(InputError, match="words: write a list of texts"), Worker(tmp_path, blocklist=tmp_path / "blocked.yaml"):
        pass


def test_the_registered_model_leaves_out_the_same(made: Path, tmp_path: Path) -> None:
    write(tmp_path, BLOCKED_IDS, {"genres": ["red"]})
    bundle, gone = Bundle.load(made / "bundle"), blocked(made, tmp_path)
    from nightloom.core.queries import Query

    shown = shown_mask(bundle, Blocklist.read(tmp_path / "blocked.yaml"))
    (answer,) = bundle.recommend([Query(["i9"], request_time=START)], N_ITEMS, allowed=shown)
    assert {item for item, _ in answer} == set(bundle.item_ids) - gone - {"i9"}
