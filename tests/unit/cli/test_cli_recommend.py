"""`nightloom recommend`: for a history, for a user, with reasons."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from nightloom.core.queries import Query
from nightloom.packaging.bundle import Bundle
from tests.small_bundle import headed_bundle


@pytest.mark.parametrize("by", ["name", "folder"])
def test_recommend(nightloom, home: SimpleNamespace, by: str) -> None:
    model = "shop" if by == "name" else home.bundle
    code, out, _ = nightloom("recommend", model, "--history", "i1, i2", "-k", 3, "--root", home.root)
    assert code == 0
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    expected = Bundle.load(home.bundle).recommend([Query(["i1", "i2"])], 3)[0]
    assert rows == [[str(rank), item, f"Title [{item[1:]}]", f"{score:.4f}"] for rank, (item, score) in enumerate(expected, start=1)]


def test_recommend_prints_the_chances_of_the_heads(nightloom, tmp_path: Path) -> None:
    code, out, _ = nightloom("recommend", headed_bundle(tmp_path / "bundle"), "--history", "i1,i2", "-k", 2)
    assert code == 0
    heads, *rows = [[cell.strip() for cell in line.strip("│┃").split(line[0])] for line in out.splitlines() if line[0] in "│┃"]
    assert heads == ["rank", "item", "title", "score", "probability", "label probability"]
    for _, _, _, score, probability, label in rows:
        assert float(probability) == pytest.approx(1 / (1 + math.exp(-float(score))), abs=1e-4)
        assert 0 < float(label) < 1


def test_recommend_refuses(nightloom, home: SimpleNamespace) -> None:
    code, _, err = nightloom("recommend", "shop", "--history", "i1,toaster", "--root", home.root)
    assert code == 2
    assert "1 of 2 ids are not in the catalogue of 10 items, for example 'toaster'. Its ids look like 'i0'" in err
    code, _, err = nightloom("recommend", "no-such", "--root", home.root)
    assert code == 2
    assert "nightloom-no-such has no champion" in err


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Canonical events of two users: ann saw i1 to i3, bob saw i4."""
    rows = [("ann", "i1", 1), ("ann", "i2", 2), ("bob", "i4", 3), ("ann", "i3", 4)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "at"])
    frame["timestamp"] = pd.to_datetime(1_600_000_000 + 3600 * frame.pop("at"), unit="s", utc=True).dt.as_unit("ms")
    frame.assign(event="buy").to_parquet(tmp_path / "events.parquet", index=False)
    return tmp_path / "events.parquet"


def test_a_user_is_answered_as_the_stored_history(nightloom, home: SimpleNamespace, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_EVENTS", str(events))
    code, out, _ = nightloom("recommend", home.bundle, "--user", "ann", "-k", 3)
    assert code == 0
    assert out.splitlines()[0] == "User ann: 3 events, the latest: Title [1], Title [2], Title [3]"
    ids = [line.strip("│").split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    times = [1_600_000_000 + 3600 * hour for hour in (1, 2, 4)]
    expected = Bundle.load(home.bundle).recommend([Query(["i1", "i2", "i3"], times)], 3)
    assert ids == [item for item, _ in expected[0]]


def test_users_are_looked_up_in_the_snapshot_of_the_champion(nightloom, home: SimpleNamespace, events: Path) -> None:
    snapshot = home.root / "snapshots" / "shop" / ("d" * 16)
    snapshot.mkdir(parents=True, exist_ok=True)
    events.rename(snapshot / "events.parquet")
    code, out, _ = nightloom("recommend", "shop", "--user", "bob", "--root", home.root)
    assert (code, out.splitlines()[0]) == (0, "User bob: 1 events, the latest: Title [4]")
    code, _, err = nightloom("recommend", "shop", "--user", "eve", "--root", home.root)
    assert code == 2
    assert "no events of this user" in err
    assert "Its ids look like 'ann'" in err


def test_a_user_without_a_store_is_refused(nightloom, home: SimpleNamespace) -> None:
    code, _, err = nightloom("recommend", home.bundle, "--user", "ann")
    assert (code, "Set NIGHTLOOM_EVENTS" in err) == (2, True)
    code, _, err = nightloom("recommend", home.bundle, "--user", "ann", "--history", "i1")
    assert (code, "name either --user" in err) == (2, True)


def test_reasons_name_the_history_or_say_that_there_is_none(nightloom, home: SimpleNamespace) -> None:
    code, out, _ = nightloom("recommend", home.bundle, "--history", "i1,i2,i3", "-k", 5, "--why")
    assert code == 0
    told = [line for line in out.splitlines() if line[:2] in ("1.", "2.", "3.", "4.")]
    assert len(told) == 3
    assert all("Title [" in line for line in told)
    assert "There is no history yet" in nightloom("recommend", home.bundle, "--why")[1]


def test_one_recommendation_is_explained_slowly(nightloom, home: SimpleNamespace) -> None:
    code, out, _ = nightloom("explain", home.bundle, "i9", "--history", "i1,i2,i3,i4")
    assert code == 0
    assert all(f"Title [{number}]" in out for number in (1, 2, 3, 4))
    assert "16 evaluations, mean standard error 0%" in out
    assert "Log-probability" in out
    for asked, said in (
        (("nix", "--history", "i1,i2"), "'nix' is not in the catalogue"),
        (("--history", "i1"), "leave nothing to tell apart"),
    ):
        code, _, err = nightloom("explain", home.bundle, *asked)
        assert code == 2
        assert said in err
