from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.config import RunConfig, config_from_dict
from nightloom.core import streaming
from nightloom.core.errors import InputError
from nightloom.core.recommender import mask_seen
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.clean import REPEAT
from nightloom.data.preparation.items import FeatureSpec, ItemFeatures
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.schema import Tables
from tests.sections import of_prepare


def config(**prepare_keys: Any) -> RunConfig:
    return config_from_dict(
        {
            "name": "t",
            "data": {"events": "e.csv"},
            "prepare": prepare_keys,
            "evaluation": {"protocols": ["temporal", "leave_one_out"]},
        }
    )


@pytest.fixture
def tables() -> Tables:
    random = np.random.default_rng(3)
    pairs = random.permutation(12 * 15)[:120]
    events = pd.DataFrame({"user_id": [f"u{p // 15}" for p in pairs], "item_id": [f"i{p % 15}" for p in pairs]})
    events["timestamp"] = pd.to_datetime(1_600_000_000 + random.permutation(120) * 1000, unit="s", utc=True).astype("datetime64[ms, UTC]")
    events["event"] = np.where(random.random(120) < 0.7, "buy", "view")
    items = pd.DataFrame({"item_id": [f"i{n}" for n in (*range(14, -1, -1), 99)]})
    items["title"] = "Film " + items["item_id"]
    users = pd.DataFrame({"user_id": ["u3", "idle"], "age": [30, 40]})
    return Tables(events, items, users, features={"title": "text"})


def read(folder: Path, protocol: str) -> tuple[Sequences, list[str], list[str]]:
    users = pd.read_parquet(folder / "users.parquet")["user_id"].tolist()
    return Sequences.load(folder / f"sequences_{protocol}.npz"), users, pd.read_parquet(folder / "items.parquet")["item_id"].tolist()


def in_words(folder: Path, protocol: str) -> set[tuple[str, str, int, int, bool, int]]:
    """Each event as (user, item, time, kind, positive, part)."""
    sequences, users, items = read(folder, protocol)
    owner = np.repeat(np.arange(sequences.n_users), np.diff(sequences.offsets))
    position = np.arange(len(owner))
    part = (position >= sequences.train_end[owner]).astype(int) + (position >= sequences.validation_end[owner])
    columns = (sequences.items, sequences.times, sequences.event_types, sequences.positive, part)
    return {(users[user], items[item], *rest) for user, item, *rest in zip(owner.tolist(), *(c.tolist() for c in columns), strict=True)}


def test_writes_what_the_architecture_lists(tables: Tables, tmp_path: Path) -> None:
    figures = prepare(tables, tmp_path, **of_prepare(config(positive_events=["buy"])))
    names = {
        "items.parquet",
        "catalogue.safetensors",
        "item_features.npz",
        "feature_spec.json",
        "users.parquet",
        "meta.json",
        "removed.parquet",
    }
    assert {path.name for path in tmp_path.iterdir()} == names | {"sequences_temporal.npz", "sequences_leave_one_out.npz"}
    items, users = pd.read_parquet(tmp_path / "items.parquet"), pd.read_parquet(tmp_path / "users.parquet")
    assert items["item_id"].tolist() == tables.items["item_id"].tolist()  # type: ignore[index]  # the fixture has items
    assert items["text"].tolist() == items["title"].tolist()
    assert users.set_index("user_id")["age"].dropna().to_dict() == {"u3": 30}
    assert len(ItemFeatures.load(tmp_path / "item_features.npz")) == 16
    assert FeatureSpec.load(tmp_path / "feature_spec.json").kinds == {"title": "text"}
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["event_types"] == ["buy", "view"]
    assert meta["default_event_type"] == "buy"
    assert (meta["prepare"]["positive_events"], meta["rare_items"]) == (["buy"], [])
    assert meta["has_time"] is True
    assert meta["counts"] == figures
    cutoffs = meta["cutoffs"]["temporal"]
    assert 1_600_000_000 < cutoffs["validation"] < cutoffs["test"] < 1_600_120_000
    assert meta["trained_until"]["temporal"] < cutoffs["test"]


@pytest.mark.parametrize("protocol", ["temporal", "leave_one_out"])
def test_sequences_hold_every_event_once_in_time_order(tables: Tables, tmp_path: Path, protocol: str) -> None:
    prepare(tables, tmp_path, **of_prepare(config(positive_events=["buy"])))
    events = tables.events
    seconds = events["timestamp"].astype("int64") // 1000
    expected = set(zip(events["user_id"], events["item_id"], seconds, events["event"] != "buy", events["event"] == "buy", strict=True))
    assert {row[:5] for row in in_words(tmp_path, protocol)} == expected
    sequences, users, _ = read(tmp_path, protocol)
    assert all((np.diff(sequences.times[a:b]) >= 0).all() for a, b in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True))
    assert users == events.sort_values("timestamp")["user_id"].unique().tolist()


@pytest.mark.parametrize("protocol", ["temporal", "leave_one_out"])
def test_a_question_knows_of_friends_what_was_known_then(tables: Tables, tmp_path: Path, protocol: str) -> None:
    pairs = pd.DataFrame({"user_id": ["u1", "u2", "u1", "nobody", "u3"], "other_id": ["u2", "u1", "u2", "u1", "u3"]})
    prepare(Tables(tables.events, tables.items, tables.users, pairs, features=tables.features), tmp_path, **of_prepare(config()))
    sequences, users, _ = read(tmp_path, protocol)
    asked: set[str] = set()
    for part, ends in (("validation", sequences.train_end), ("test", sequences.validation_end)):
        queries = sequences.queries(part)
        links = queries.histories.links
        assert links is not None
        for row, user in enumerate(queries.users):
            people = [users[one] for one in links.friends[links.offsets[row] : links.offsets[row + 1]]]
            assert people == {"u1": ["u2"], "u2": ["u1"]}.get(users[user], [])  # each once; oneself and strangers are no friends
        np.testing.assert_array_equal(links.known.lengths, ends - sequences.offsets[:-1])
        asked |= {users[user] for user in queries.users}
    assert {"u1", "u2"} & asked, "those who have friends"
    assert asked - {"u1", "u2"}, "those who have none"


@pytest.mark.parametrize("scores", [10**10, 60])
def test_as_many_queries_are_counted_as_are_asked(tables: Tables, tmp_path: Path, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MOST_SCORES", scores)  # of a large catalogue fewer are asked
    said = config_from_dict({"name": "t", "data": {"events": "e.csv"}, "evaluation": {"protocols": ["streaming"]}})
    parts = prepare(tables, tmp_path, **of_prepare(said))["parts"]["streaming"]
    sequences, users, _ = read(tmp_path, "streaming")
    queries = streaming.streaming_queries(sequences, "test", exclude_seen=said.evaluation.exclude_seen)
    assert parts["test_queries"] == len(queries) > 0
    assert parts["test_users"] == len(np.unique(queries.users)) <= len(users)


def test_row_order_does_not_change_a_split_by_distinct_times(tables: Tables, tmp_path: Path) -> None:
    shuffled = Tables(tables.events.sample(frac=1, random_state=1), tables.items, tables.users, features=tables.features)
    for name, one in (("a", tables), ("b", shuffled)):
        (tmp_path / name).mkdir()
        prepare(one, tmp_path / name, **of_prepare(config(positive_events=["buy"])))
    for protocol in ("temporal", "leave_one_out"):
        assert in_words(tmp_path / "a", protocol) == in_words(tmp_path / "b", protocol)


def test_events_of_one_time_keep_the_order_of_the_source(tmp_path: Path) -> None:
    events = pd.DataFrame({"user_id": ["u"] * 20, "item_id": [f"i{n * 7 % 20}" for n in range(20)], "event": ["e"] * 20})
    events["timestamp"] = pd.Series(pd.to_datetime([5] * 20, unit="s", utc=True)).astype("datetime64[ms, UTC]")
    only = config_from_dict({"name": "t", "data": {"events": "e"}, "evaluation": {"protocols": ["leave_one_out"]}})
    prepare(Tables(events), tmp_path, **of_prepare(only))
    sequences, _, items = read(tmp_path, "leave_one_out")
    assert [items[code] for code in sequences.items] == events["item_id"].tolist()


def test_order_instead_of_time(tables: Tables, tmp_path: Path) -> None:
    tables.events["order"] = tables.events.pop("timestamp").rank().astype("int64")
    prepare(tables, tmp_path, **of_prepare(config()))
    sequences, _, _ = read(tmp_path, "temporal")
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert not sequences.has_time
    assert not meta["has_time"]
    assert meta["cutoffs"]["temporal"] == {"validation": 85, "test": 97}
    assert meta["trained_until"]["temporal"] == 96
    assert meta["cutoffs"]["leave_one_out"] == {"validation": None, "test": None}


def test_without_an_items_table_the_catalogue_is_that_of_the_events(tables: Tables, tmp_path: Path) -> None:
    prepare(Tables(tables.events), tmp_path, **of_prepare(config(min_item_events=8)))
    items = pd.read_parquet(tmp_path / "items.parquet")
    assert items["item_id"].tolist() == tables.events.sort_values("timestamp")["item_id"].unique().tolist()
    assert items["text"].isna().all()
    sequences = Sequences.load(tmp_path / "sequences_temporal.npz")
    assert sequences.n_items == 15
    learned = set(items["item_id"].iloc[np.unique(sequences.items)])
    assert json.loads((tmp_path / "meta.json").read_text())["rare_items"] == sorted(set(items["item_id"]) - learned) != []


def test_removed_events_are_counted_and_kept_aside(tables: Tables, tmp_path: Path) -> None:
    doubled = Tables(pd.concat([tables.events, tables.events.head(3)], ignore_index=True), tables.items, features=tables.features)
    figures = prepare(doubled, tmp_path, **of_prepare(config()))
    removed = pd.read_parquet(tmp_path / "removed.parquet")
    assert len(removed) == sum(figures["removed"].values()) == 3
    assert removed["reason"].str.startswith("duplicate").all()


def test_refusals_say_what_to_do(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cleaning leaves none of 120 events.*Loosen"):
        prepare(tables, tmp_path, **of_prepare(config(min_user_events=1000)))
    with pytest.raises(InputError, match=r"item_id that is not in the items table, for example 'i\d+'"):
        prepare(Tables(tables.events, tables.items.head(3)), tmp_path, **of_prepare(config()))  # type: ignore[union-attr]  # the fixture has items
    lonely = tables.events.drop_duplicates("user_id")
    only = config_from_dict({"name": "t", "data": {"events": "e"}, "evaluation": {"protocols": ["leave_one_out"]}})
    with pytest.raises(InputError, match="three positive events"):
        prepare(Tables(lonely), tmp_path, **of_prepare(only))


def test_one_item_is_nothing_to_rank(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing to rank.*flows\.clicks"):
        prepare(Tables(tables.events.assign(item_id="undisclosed")), tmp_path, **of_prepare(config()))


@pytest.mark.parametrize("protocol", ["temporal", "leave_one_out"])
def test_a_test_without_a_question_is_refused_with_the_keys_that_help(tmp_path: Path, protocol: str) -> None:
    """Everybody has the same three items in turn, again and again."""
    rows = [(f"u{user}", f"i{turn % 3}", 1_600_000_000 + 1000 * turn + user) for turn in range(30) for user in range(5)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).assign(event="buy")
    events["timestamp"] = pd.to_datetime(events["timestamp"], unit="s", utc=True).astype("datetime64[ms, UTC]")
    made = {"name": "t", "data": {"events": "e"}, "prepare": {"keep_repeats": True}, "evaluation": {"protocols": [protocol]}}
    with pytest.raises(InputError, match=rf"{protocol} test has no question: each of its \d+ .*evaluation\.exclude_seen: false"):
        prepare(Tables(events), tmp_path, **of_prepare(config_from_dict(made)))
    assert prepare(Tables(events), tmp_path, must_ask=False, **of_prepare(config_from_dict(made)))["parts"][protocol]["test_users"] == 0
    made["evaluation"] = {"protocols": [protocol], "exclude_seen": False}
    assert prepare(Tables(events), tmp_path, **of_prepare(config_from_dict(made)))["parts"][protocol]["test_users"] == 5


def test_a_view_neither_bars_an_item_nor_tells_of_its_purchase(tmp_path: Path) -> None:
    """Users buy at random among what they have viewed: nothing can be learned, and nothing of the test may be read from what is missing."""
    random, rows = np.random.default_rng(0), []
    for user in range(100):
        viewed = random.permutation(50)[:30]
        rows += [(f"u{user}", f"i{item}", "view", user + 300 * at) for at, item in enumerate(viewed)]
        bought = random.choice(viewed, 6, replace=False)
        rows += [(f"u{user}", f"i{item}", "buy", 10**6 + user + 10**5 * at) for at, item in enumerate(bought)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "event", "timestamp"])
    events["timestamp"] = pd.to_datetime(1_600_000_000 + events["timestamp"], unit="s", utc=True).astype("datetime64[ms, UTC]")
    wanted = RunConfig.model_validate(config(positive_events=["buy"]).model_dump() | {"evaluation": {"protocols": ["temporal"]}})
    figures = prepare(Tables(events, None, None), tmp_path, **of_prepare(wanted))
    assert figures["removed"][REPEAT] == 0
    queries = Sequences.load(tmp_path / "sequences_temporal.npz").queries("test", exclude_seen=True)
    assert len(queries.targets) == figures["parts"]["temporal"]["test"]
    scores = np.zeros((len(queries), 50), dtype=np.float32)
    mask_seen(scores, queries.histories)
    users, items = (pd.read_parquet(tmp_path / f"{name}s.parquet")[f"{name}_id"].to_numpy() for name in ("user", "item"))
    cutoff = json.loads((tmp_path / "meta.json").read_text())["cutoffs"]["temporal"]["test"]
    had = events[(events["event"] == "buy") & (events["timestamp"] < pd.Timestamp(cutoff, unit="s", tz="UTC"))]
    expected = had[had["user_id"].isin(users[queries.users])][["user_id", "item_id"]].to_numpy().tolist()
    row, item = np.nonzero(np.isneginf(scores))
    assert sorted(zip(users[queries.users[row]], items[item], strict=True)) == sorted(map(tuple, expected))
    every = wanted.model_copy(update={"prepare": wanted.prepare.model_copy(update={"seen_events": ("buy", "view")})})
    with pytest.raises(InputError, match="has no question"):  # all was viewed before it was bought
        prepare(Tables(events, None, None), tmp_path, **of_prepare(every))
