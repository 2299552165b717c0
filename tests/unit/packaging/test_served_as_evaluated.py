"""The registered model answers a stored user as evaluation does: the same events, named and labelled alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.config import config_from_dict
from nightloom.core.errors import InputError, RenamedWarning
from nightloom.core.sequences import Histories, Sequences
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.schema import Tables
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.manifest import seal
from nightloom.packaging.pyfunc_model import Recommender
from tests.sections import of_prepare
from tests.small_bundle import N_ITEMS, random_bundle

START, USERS = 1_700_000_000, 12
RULES = {"positive_events": ["purchase"], "positive_min_value": 2, "max_user_events_per_day": 30, "min_item_events": 3}


def shop() -> Tables:
    """Events of three names, some twice in the store, with a robot, an item that two had, and values that make a purchase positive."""
    random, n = np.random.default_rng(5), 240
    user, item = random.integers(0, USERS, n), random.integers(0, N_ITEMS - 1, n)
    at = START + random.permutation(n) * 7000
    events = pd.DataFrame({"user_id": [f"u{one}" for one in user], "item_id": [f"i{one}" for one in item], "at": at})
    events["event"] = random.choice(["add", "purchase", "view"], n, p=[0.1, 0.5, 0.4])
    events["value"] = random.integers(1, 5, n).astype(float)
    rare = pd.DataFrame({"user_id": ["u0", "u1"], "item_id": f"i{N_ITEMS - 1}", "at": START + 900, "event": "purchase", "value": 5.0})
    robot = pd.DataFrame(
        {"user_id": "robot", "item_id": "i1", "at": START + 10 * np.arange(40), "event": np.resize(["purchase", "view"], 40), "value": 3.0}
    )
    whole = pd.concat([events, events.iloc[::5], rare, robot], ignore_index=True)
    whole["timestamp"] = pd.to_datetime(whole.pop("at"), unit="s", utc=True).astype("datetime64[ms, UTC]")
    items = pd.DataFrame({"item_id": [f"i{row}" for row in range(N_ITEMS)], "title": [f"Title {row}" for row in range(N_ITEMS)]})
    return Tables(whole, items, features={"title": "text"})


def at_the_end(sequences: Sequences) -> Histories:
    """What is known of every user in the end. These data ended years ago, so a request without a time is made just after their end."""
    whole = sequences.before(np.arange(USERS), sequences.offsets[1:])
    return replace(whole, request_time=np.full(USERS, sequences.times.max() + 1))


def served(folder: Path, **rules: Any) -> SimpleNamespace:
    """What a night prepares, a model of it, and a function that asks that as MLflow does with a store of events."""
    prepared, tables = folder / "prepared", shop()
    prepared.mkdir()
    sections = {"data": {"events": "e.csv"}, "prepare": RULES | rules, "evaluation": {"protocols": ["temporal"]}}
    prepare(tables, prepared, **of_prepare(config_from_dict({"name": "shop"} | sections)))
    bundle = random_bundle(prepared, folder / "bundle", labelled=True)

    def ask(rows: list[dict[str, Any]], events: pd.DataFrame, **params: Any) -> pd.DataFrame:
        events.to_parquet(folder / "events.parquet", index=False)
        context = SimpleNamespace(artifacts={"bundle": str(bundle)}, model_config={"events": str(folder)})
        model = Recommender()
        model.load_context(context)
        return model.predict(context, pd.DataFrame(rows), {"k": N_ITEMS, "exclude_seen": False} | params)

    sequences, users = Sequences.load(prepared / "sequences_temporal.npz"), pd.read_parquet(prepared / "users.parquet")["user_id"].tolist()
    return SimpleNamespace(bundle=Bundle.load(bundle), sequences=sequences, users=users, events=tables.events, ask=ask, prepared=prepared)


def assert_same(answers: pd.DataFrame, model: Bundle, histories: Histories) -> None:
    """Each row gives the scores that evaluation would rank."""
    ids = model.item_ids.tolist()
    for row, scores in enumerate(model.recommender.scores(histories)):
        found = dict(zip(answers["items"][row], answers["scores"][row], strict=True))
        np.testing.assert_allclose([found[one] for one in ids], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keep_repeats", [False, True])
def test_a_stored_user_is_asked_with_the_history_that_was_prepared(tmp_path: Path, keep_repeats: bool) -> None:
    shop = served(tmp_path, keep_repeats=keep_repeats)
    sequences = shop.sequences
    assert "robot" not in shop.users
    assert len(shop.users) == USERS
    assert_same(shop.ask([{"user_id": user} for user in shop.users], shop.events), shop.bundle, at_the_end(sequences))
    answers = shop.ask([{"user_id": "robot"}, {"user_id": "nobody"}], shop.events)
    assert answers["scores"][0] == answers["scores"][1]


def test_a_stored_user_is_asked_as_in_the_test(tmp_path: Path) -> None:
    """At the time of the test's query: what came later is in the store by now, and is not looked at."""
    shop = served(tmp_path, keep_repeats=True)
    queries = shop.sequences.queries("test", exclude_seen=False)
    assert len(queries) > USERS // 2
    cutoff = json.loads((shop.prepared / "meta.json").read_text())["cutoffs"]["temporal"]["test"]
    before = shop.events[shop.events["timestamp"] < pd.Timestamp(cutoff, unit="s", tz="UTC")]
    moments = zip(queries.users.tolist(), queries.histories.request_time.tolist(), strict=True)
    rows = [{"user_id": shop.users[user], "request_time": at} for user, at in moments]
    for store in (before, shop.events):
        assert_same(shop.ask(rows, store), shop.bundle, queries.histories)


def test_what_was_seen_is_left_out_as_in_the_test(tmp_path: Path) -> None:
    """A viewed item may be recommended, one that was bought may not, whether its purchase counted as positive or not."""
    shop = served(tmp_path, keep_repeats=True)
    ranked, _ = shop.bundle.recommender.recommend(at_the_end(shop.sequences), N_ITEMS, exclude_seen=True)
    answers = shop.ask([{"user_id": user} for user in shop.users], shop.events, exclude_seen=True)
    assert answers["items"].tolist() == [shop.bundle.item_ids[row[row >= 0]].tolist() for row in ranked]
    assert answers["items"].map(len).sum() > 0


def test_a_question_may_say_the_same_itself(tmp_path: Path) -> None:
    shop = served(tmp_path, keep_repeats=True)
    sequences, names, ids = shop.sequences, shop.bundle.event_names.known, shop.bundle.item_ids
    parts = [slice(*sequences.offsets[user : user + 2]) for user in range(USERS)]
    said = [
        {
            "history": ids[sequences.items[part]].tolist(),
            "times": sequences.times[part].tolist(),
            "events": [names[code] for code in sequences.event_types[part]],
            "positive": sequences.positive[part].tolist(),
        }
        for part in parts
    ]
    stored = shop.ask([{"user_id": user} for user in shop.users], shop.events)
    pd.testing.assert_frame_equal(shop.ask(said, shop.events), stored)
    ablated = shop.ask([{key: row[key] for key in ("history", "times", "positive")} for row in said], shop.events)
    assert ablated["scores"].tolist() != stored["scores"].tolist()


def test_what_is_not_said_is_the_usual_event_and_its_name_tells_whether_it_is_positive(tmp_path: Path) -> None:
    shop = served(tmp_path)
    history = ["i1", "i2", "i3"]

    def scores(**said: Any) -> list[float]:
        return shop.ask([{"history": history} | said], shop.events)["scores"][0]

    assert scores() == scores(events=["purchase"] * 3) == scores(events=["purchase"] * 3, positive=[True] * 3)
    mixed = ["purchase", "view", "purchase"]
    assert scores(events=mixed) == scores(events=mixed, positive=[True, False, True])
    assert scores(events=mixed) != scores(events=mixed, positive=[True] * 3)
    assert scores(events=mixed) != scores()


def test_event_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    shop = served(tmp_path)
    with pytest.raises(InputError, match=r"events: the model knows no event 'buy'\. It knows: add, purchase, view"):
        shop.ask([{"history": ["i1"], "events": ["buy"]}], shop.events)
    with pytest.raises(InputError, match="2 event_types for 1 events"):
        shop.ask([{"history": ["i1"], "events": ["view", "view"]}], shop.events)


def test_a_store_that_has_gone_on(tmp_path: Path) -> None:
    """A name that came up after the training is the usual one there, and somebody new is asked at the time that is said."""
    shop = served(tmp_path, positive_min_value=None, positive_events=None)
    usual = shop.bundle.event_names.default
    renamed = [shop.events.assign(event=shop.events["event"].where(shop.events["event"] != usual, name)) for name in ("brand new", usual)]
    rows = [{"user_id": user} for user in shop.users]
    pd.testing.assert_frame_equal(*(shop.ask(rows, events) for events in renamed))
    nobody = replace(Histories.of_items([[]]), request_time=np.array([START]))
    assert_same(shop.ask([{"user_id": "nobody", "request_time": START}], shop.events), shop.bundle, nobody)


def test_a_model_that_does_not_say_how_events_are_prepared_answers_histories_alone(tmp_path: Path) -> None:
    shop = served(tmp_path)
    path = tmp_path / "bundle" / "meta.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({key: meta[key] for key in meta if key not in ("prepare", "default_event_type", "rare_items")}))
    seal(path.parent, {})
    first = shop.ask([{"history": ["i1"], "events": ["add"]}], shop.events)
    pd.testing.assert_frame_equal(shop.ask([{"history": ["i1"]}], shop.events), first)
    with pytest.raises(InputError, match="Train once more, or send `history`"):
        shop.ask([{"user_id": "u1"}], shop.events)
    path.write_text(json.dumps(meta))
    seal(path.parent, {})
    with pytest.raises(InputError, match="no canonical events, event is missing"):
        shop.ask([{"user_id": "u1"}], shop.events.drop(columns="event"))


def test_the_old_name_of_the_request_time_works_with_a_warning(tmp_path: Path) -> None:
    shop = served(tmp_path)
    row = {"history": ["i1", "i2"], "times": [START, START + 60]}
    now, at_once = (shop.ask([row | {"request_time": at}], shop.events) for at in (START + 10**6, START + 60))
    with pytest.warns(RenamedWarning, match="`asked_at` is now `request_time`"):
        old = shop.ask([row | {"asked_at": START + 10**6}], shop.events)
    pd.testing.assert_frame_equal(old, now)
    assert old["scores"].tolist() != at_once["scores"].tolist()
    with pytest.raises(InputError, match="Give `request_time` alone"):
        shop.ask([row | {"asked_at": START, "request_time": START}], shop.events)
