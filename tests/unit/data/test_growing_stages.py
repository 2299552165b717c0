"""Events that grow: validate and prepare of the second night give what they give to a night that reads everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expectations import base
from expectations import events as of_events
from expectations.rules import RowRule
from expectations.run import check, read_checked
from nightloom.config import config_from_dict
from nightloom.core.sequences import Sequences
from nightloom.data.collect import collect
from nightloom.data.preparation import kept_rows
from nightloom.data.preparation import rows as of_rows
from nightloom.data.preparation.prepare import prepare
from nightloom.data.sources import files
from nightloom.data.tables import coded
from nightloom.data.tables.kept import SAID, kept_home
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.privacy.forget import forget
from tests.sections import of_prepare
from tests.unit.data.test_growing import NAME, days, log
from tests.unit.expectations.test_coded_events import pages
from tests.unit.expectations.test_contracts import NOW

PROTOCOLS = ("streaming", "leave_one_out")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts and buckets of few rows."""
    monkeypatch.setattr(coded, "ROW_GROUP", 50)
    monkeypatch.setattr(files, "PIECE", 40)
    monkeypatch.setattr(of_rows, "BUCKET", 64)


def run(source: Path, **validation: Any) -> Any:
    limits = {"max_bad_share": 0.9, "min_events": 10, "allowed_events": ["view", "buy"], "value_range": [1, 5], **validation}
    cleaning = {"min_user_events": 3, "min_item_events": 2, "max_user_events_per_day": 8, "positive_events": ["buy"]}
    data = {"events": str(source / "events"), "items": str(source / "items.csv"), "store": "none"}
    evaluation = {"protocols": list(PROTOCOLS)}
    return config_from_dict({"name": NAME, "data": data, "validation": limits, "prepare": cleaning, "evaluation": evaluation})


def sources(folder: Path, seed: int, rows: int) -> list[Path]:
    """A catalogue, and events of which some break a rule."""
    folder.mkdir()
    items = pd.DataFrame({"item_id": [str(item) for item in range(18)], "title": "a thing"})
    items.to_csv(folder / "items.csv", index=False)
    events = log(seed, rows)
    random = np.random.default_rng(seed)
    events.loc[random.random(rows) < 0.04, "event"] = "unheard of"
    events.loc[random.random(rows) < 0.04, "value"] = 9
    events.loc[60:109] = events.loc[60:109].assign(item_id="3", user_id="7", event="buy", value=2)  # a part without a bad row
    ends = sorted({*random.choice(np.arange(50, rows - 40), 6, replace=False).tolist(), rows - 30, rows - 20, rows})
    return days(folder / "events", events, ends, "csv")


def chain(config: Any, root: Path, out: Path, keep: Path | None, now: datetime = NOW) -> tuple[Any, Any]:
    """Figures of validate and prepare."""
    snapshot = collect(NAME, config.data, root)
    for stage in ("validate", "prepare"):
        (out / stage).mkdir(parents=True)
    checked = check(read_snapshot(snapshot.path, in_blocks=True), config, out / "validate", None, now, keep and keep / "validate")
    good = read_checked(out / "validate", in_blocks=True)
    return checked, prepare(good, out / "prepare", **of_prepare(config), keep=keep and keep / "prepare")


def rows_judged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each block of events that is judged."""
    found: list[int] = []
    really = of_events.separate
    monkeypatch.setattr(of_events, "separate", lambda block, breaches: (found.append(len(block)), really(block, breaches))[1])
    return found


def content(folder: Path) -> dict[str, Any]:
    """All files of a folder, of arrays what they hold."""
    found: dict[str, Any] = {}
    for path in (one for one in sorted(folder.rglob("*")) if one.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith("sequences"):
            sequences = Sequences.load(path)
            found[name] = {field: np.asarray(getattr(sequences, field)).tolist() for field in Sequences.__dataclass_fields__}
        elif "data_docs" not in name:
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("seed", range(2))
def test_later_nights_give_what_the_first_would(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = sources(tmp_path / "source", seed, 400)
    config, root = run(tmp_path / "source"), tmp_path / "mlruns"
    later = places[-2:]
    for place in later:
        place.rename(tmp_path / place.name)
    dealt: list[int] = []
    really = of_rows.Buckets.deal
    monkeypatch.setattr(of_rows.Buckets, "deal", lambda *given: (dealt.append(len(given[1])), really(*given)))
    judged = rows_judged(monkeypatch)
    chain(config, root, tmp_path / "first", kept_home(root, NAME))
    for place in later:
        (tmp_path / place.name).rename(place)
        told = []
        for night, keep in (("kept", kept_home(root, NAME)), ("scratch", None)):
            dealt.clear()
            judged.clear()
            out = tmp_path / f"{night}-{place.stem}"
            told.append((chain(config, root if keep else out / "mlruns", out, keep), sum(dealt), sum(judged)))
        assert told[0][0] == told[1][0]
        assert content(tmp_path / f"kept-{place.stem}" / "validate") == content(tmp_path / f"scratch-{place.stem}" / "validate")
        assert content(tmp_path / f"kept-{place.stem}" / "prepare") == content(tmp_path / f"scratch-{place.stem}" / "prepare")
        assert pages(tmp_path / f"kept-{place.stem}" / "validate") == pages(tmp_path / f"scratch-{place.stem}" / "validate")
    assert told[0][1] < told[1][1] - 200
    assert told[0][2] < told[1][2] - 200
    assert len(json.loads((kept_home(root, NAME) / "prepare" / SAID).read_text())["parts"]) >= 6


def test_all_is_dealt_anew_where_parts_are_others_or_nights_too_many_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = sources(tmp_path / "source", 5, 400)
    config, root = run(tmp_path / "source"), tmp_path / "mlruns"
    chain(config, root, tmp_path / "first", kept_home(root, NAME))
    said = kept_home(root, NAME) / "prepare" / SAID
    assert json.loads(said.read_text())["nights"] == 1
    places[0].write_text(places[0].read_text().replace("buy", "view"))
    chain(config, tmp_path / "scratch" / "mlruns", tmp_path / "scratch", None)
    for night, change in enumerate(("a file", "a kept file", "nights")):
        if change == "a kept file":
            (said.parent / "0" / "0.user").write_bytes(b"no such bytes")
        if change == "nights":
            monkeypatch.setattr(kept_rows, "MOST", 1)
        chain(config, root, tmp_path / f"kept-{night}", kept_home(root, NAME))
        assert content(tmp_path / f"kept-{night}" / "prepare") == content(tmp_path / "scratch" / "prepare")
        assert json.loads(said.read_text())["nights"] == 1
    assert {stage.name for stage in kept_home(root, NAME).iterdir()} == {"collect", "validate", "prepare"}
    forget(NAME, "7", root)
    assert not list(kept_home(root, NAME).iterdir())


def test_what_a_rule_says_by_now_is_judged_anew_where_it_says_another_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, root = tmp_path / "source", tmp_path / "mlruns"
    places = sources(source, 6, 300)
    events = pd.read_csv(places[0])
    events.loc[5, "timestamp"] = int((NOW + timedelta(days=3)).timestamp())
    events.to_csv(places[0], index=False)
    config, home = run(source), kept_home(root, NAME)
    judged = rows_judged(monkeypatch)

    def night(name: str, days_later: int, keep: Path | None) -> tuple[Any, int]:
        judged.clear()
        (tmp_path / name).mkdir()
        tables = read_snapshot(collect(NAME, config.data, root).path, in_blocks=True)
        found = check(tables, config, tmp_path / name, None, NOW + timedelta(days=days_later), keep and keep / "validate")
        return found, sum(judged)

    night("first", 0, home)
    catalogue = (source / "items.csv").read_text()
    changes = {"nothing": (1, catalogue), "a new item": (1, catalogue + "77,new\n"), "it is later": (5, catalogue)}
    changes["an item of old events"] = (5, catalogue + "18,known by now\n")
    for name, (later, items) in changes.items():
        (source / "items.csv").write_text(items)
        found, rows = night(f"kept {name}", later, home)
        again, all_rows = night(f"scratch {name}", later, None)
        assert found == again
        assert content(tmp_path / f"kept {name}") == content(tmp_path / f"scratch {name}")
        assert (rows < all_rows - 200) == (name in ("nothing", "a new item")), name


class Priced:
    """Items of which an event must say a value."""

    def __init__(self, items: set[str]) -> None:
        self.items = items

    def lacks(self, events: pd.DataFrame) -> pd.Series:
        """Where it does not."""
        return events["item_id"].isin(self.items) & (events["event"] == "view")


HELD: dict[str, Callable[[set[str]], Callable[[pd.DataFrame], pd.Series]]] = {
    "a method": lambda items: Priced(items).lacks,
    "a default value": lambda items: lambda t, which=items: t["item_id"].isin(which) & (t["event"] == "view"),
    "a default value by name": lambda items: lambda t, *, which=items: t["item_id"].isin(which) & (t["event"] == "view"),
    "a closure": lambda items: lambda t: t["item_id"].isin(items) & (t["event"] == "view"),
}


@pytest.mark.parametrize("how", list(HELD))
def test_a_rule_that_holds_on_to_what_may_change_is_asked_anew(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, root = tmp_path / "source", tmp_path / "mlruns"
    sources(source, 8, 300)
    config, usual, home = run(source), base.contracts, kept_home(root, NAME)
    tables = read_snapshot(collect(NAME, config.data, root).path, in_blocks=True)
    for night, items, keep in (("first", {"3"}, home), ("second", {"4"}, home), ("scratch", {"4"}, None)):
        rule = RowRule("item_id", "without a price", HELD[how](items), reads=("item_id", "event"), alone=True)
        monkeypatch.setattr(base, "contracts", lambda *given, one=rule: (f := usual(*given)) | {"events": base.more(f["events"], (one,))})
        (tmp_path / night).mkdir()
        check(tables, config, tmp_path / night, None, NOW, keep and keep / "validate")
    assert content(tmp_path / "second") == content(tmp_path / "scratch")
    assert content(tmp_path / "first") != content(tmp_path / "second")


def test_rules_that_look_at_other_rows_have_all_rows_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, root = tmp_path / "source", tmp_path / "mlruns"
    sources(source, 7, 300)
    config, judged = run(source), rows_judged(monkeypatch)
    usual = base.contracts
    once = base.unique("timestamp")
    monkeypatch.setattr(base, "contracts", lambda *given: (found := usual(*given)) | {"events": base.more(found["events"], (once,))})
    tables = read_snapshot(collect(NAME, config.data, root).path, in_blocks=True)
    for night in ("first", "second"):
        judged.clear()
        (tmp_path / night).mkdir()
        check(tables, config, tmp_path / night, None, NOW, kept_home(root, NAME) / "validate")
        assert sum(judged) == len(tables.events)
    assert not (kept_home(root, NAME) / "validate").exists()
    assert content(tmp_path / "first") == content(tmp_path / "second")
