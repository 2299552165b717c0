"""Commands and the registered model name nothing that is blocked: by id, by value, by a word in whatever spelling."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightloom.core.blocklist import VARIABLE, Blocklist
from nightloom.data.preparation.items import FeatureSpec
from nightloom.evaluation.samples import without_blocked
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.pyfunc_model import Recommender
from nightloom.packaging.shown import blocked_ids
from tests.small_bundle import random_bundle, small_config

TITLES = (
    *(
        "Grand \uff23\uff21\uff33\uff29\uff2e\uff2f",
        "网上赌博之王",
        "Cas\u00adino night",
        "Casinos",
        "The Garden",
        "A Quiet Street",
        "North Wind",
        "Harbour Lights",
    ),
    *("Paper Boats", "The Long Field", "Winter Bread", "Blue Door", "Seven Rivers", "Old Maps", "Salt and Stone", "A Small Orchestra"),
)
GENRES = ("Drama", "Drama|Crime", "Comedy", "\uff21\uff44\uff55\uff4c\uff54|Drama", "Comedy|Crime") * 4
IDS = [f"id-{place:02}" for place in range(len(TITLES))]
BY_WORD, BY_VALUE = {0, 1, 2}, {place for place in range(len(TITLES)) if place % 5 == 3}
"""What `casino` and 赌博 block, and what the genre `adult` does; number 3 is called Casinos and has the genre."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A bundle of described items, the events of two users, and a file for the blocklist."""
    home = tmp_path_factory.mktemp("blocked")
    source = home / "source"
    source.mkdir()
    items = pd.DataFrame({"item_id": IDS, "title": TITLES, "genres": GENRES[: len(IDS)]})
    items.assign(text=items["title"]).to_parquet(source / "items.parquet", index=False)
    FeatureSpec.fit(items, {"title": "text", "genres": "tags"}).save(source / "feature_spec.json")
    rules = small_config().prepare.model_dump(mode="json")
    meta = {"event_types": ["buy"], "default_event_type": "buy", "prepare": rules, "rare_items": [], "has_time": True}
    (source / "meta.json").write_text(json.dumps(meta))
    rows = [(user, IDS[item], place) for user, bought in (("ann", (0, 3, 5, 1)), ("bob", (6, 2, 8))) for place, item in enumerate(bought)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "at"])
    events["timestamp"] = pd.to_datetime(1_600_000_000 + 3600 * events.pop("at"), unit="s", utc=True).dt.as_unit("ms")
    events.assign(event="buy").to_parquet(home / "events.parquet", index=False)
    return SimpleNamespace(
        bundle=random_bundle(source, home / "bundle"), events=home / "events.parquet", blocklist=home / "list.yaml", home=home
    )


HISTORY = st.lists(st.sampled_from(IDS), min_size=2, max_size=6)
BLOCKED = st.fixed_dictionaries({"items": st.sets(st.sampled_from(IDS), max_size=4), "values": st.booleans(), "words": st.booleans()})


def block(shop: SimpleNamespace, asked: dict) -> set[int]:
    """Write a blocklist; the items that it has to block, by what was put into the catalogue."""
    said = {"items": sorted(asked["items"])}
    said |= {"values": {"genres": ["adult"]}} if asked["values"] else {}
    said |= {"words": ["casino", "赌博"]} if asked["words"] else {}
    shop.blocklist.write_text(json.dumps(said))
    return {IDS.index(one) for one in asked["items"]} | (BY_VALUE if asked["values"] else set()) | (BY_WORD if asked["words"] else set())


def leaks(text: str, blocked: set[int]) -> set[str]:
    """What a text names of the blocked items; tables may break a title over lines."""
    said = " ".join(text.replace("│", " ").split())
    return {one for place in blocked for one in (IDS[place], TITLES[place]) if one in said}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blocked=BLOCKED, history=HISTORY, who=st.sampled_from(["history", "ann", "bob"]), seen=st.booleans(), item=st.sampled_from([None, *IDS])
)
def test_no_command_names_what_is_blocked(
    nightloom: Callable, shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, blocked, history, who, seen, item
) -> None:
    gone = block(shop, blocked)
    monkeypatch.setenv(VARIABLE, str(shop.blocklist))
    monkeypatch.setenv("NIGHTLOOM_EVENTS", str(shop.events))
    monkeypatch.setenv("COLUMNS", "200")
    asked = ("--history", ",".join(history)) if who == "history" else ("--user", who)
    code, out, err = nightloom("recommend", shop.bundle, *asked, "-k", len(IDS), "--why", *(["--seen"] if seen else []))
    assert (code, leaks(out + err, gone)) == (0, set())
    code, out, err = nightloom("explain", shop.bundle, *([item] if item else []), *asked, "--samples", 32)
    if item is not None and IDS.index(item) in gone:
        assert (code, "this item is blocked" in err) == (2, True)
    else:
        assert code == 0
    assert leaks(out + err, gone) == set()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocked=BLOCKED, histories=st.lists(HISTORY, min_size=1, max_size=8), seen=st.booleans())
def test_the_registered_model_gives_many_rows_nothing_that_is_blocked(shop: SimpleNamespace, blocked, histories, seen) -> None:
    gone = block(shop, blocked)
    settings_ = {"blocklist": str(shop.blocklist), "events": str(shop.events)}
    context = SimpleNamespace(artifacts={"bundle": str(shop.bundle)}, model_config=settings_)
    model = Recommender()
    model.load_context(context)
    params = {"k": len(IDS), "exclude_seen": not seen}
    for asked in (pd.DataFrame({"history": histories}), pd.DataFrame({"user_id": ["ann", "bob"]})):
        found = model.predict(context, asked, params)
        assert {IDS.index(one) for row in found["items"] for one in row}.isdisjoint(gone)
    if seen:
        assert all({IDS.index(one) for one in row} == set(range(len(IDS))) - gone for row in model.predict(context, asked, params)["items"])


def test_lists_in_the_report_leave_out_what_is_blocked(shop: SimpleNamespace) -> None:
    gone = block(shop, {"items": {"id-05"}, "values": True, "words": True})
    listed = [
        {"item_id": one, "title": title, "rank": rank, "other_rank": None}
        for rank, (one, title) in enumerate(zip(IDS, TITLES, strict=True), 1)
    ]
    lists = {"protocol": "temporal", "users": [{"user_id": "ann", "challenger": listed, "champion": listed[:6]}], "known_ranks": 10}
    found = without_blocked(lists, blocked_ids(Bundle.load(shop.bundle), Blocklist.read(shop.blocklist)))
    assert leaks(json.dumps(found, ensure_ascii=False), gone) == set()
    assert [item["rank"] for item in found["users"][0]["challenger"]] == [place + 1 for place in range(len(IDS)) if place not in gone]
    assert found["known_ranks"] == 10
    assert without_blocked(lists, blocked_ids(Bundle.load(shop.bundle), Blocklist())) == lists


def test_a_history_and_a_blocklist_that_leave_nothing_are_refused(
    nightloom: Callable, shop: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.blocklist.write_text(json.dumps({"items": IDS[2:]}))
    monkeypatch.setenv(VARIABLE, str(shop.blocklist))
    code, _, err = nightloom("explain", shop.bundle, "--history", "id-00,id-01")
    assert (code, "nothing is left to recommend" in err) == (2, True)


def test_an_mlruns_folder_has_its_own_list(nightloom: Callable, home: SimpleNamespace) -> None:
    path = home.root / "blocklists" / "shop.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("items: [i1, i9]")
    try:
        code, out, _ = nightloom("recommend", "shop", "--history", "i1,i2,i3", "--why", "--seen", "--root", home.root)
        assert code == 0
        assert "Title [2]" in out
        assert "Title [1]" not in out
        assert "Title [9]" not in out
    finally:
        path.unlink()
