"""Edges built anew by day are those of a model which is fitted on all events."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightloom.core.queries import build_histories
from nightloom.models.scorers.cooccurrence import Cooccurrence
from nightloom.models.scorers.item_graph import ItemGraph
from nightloom.models.scorers.linear import Linear
from nightloom.serving import rebuild as rebuilding
from nightloom.serving import rebuilder
from nightloom.serving.model.members import ItemEdges
from nightloom.serving.rebuild import NOTHING, Rebuilt, rebuild
from nightloom.serving.rebuilder import Rebuilder
from nightloom.serving.settings import CHAMPION, Champion, rebuilt_file, rebuilt_files
from tests import waiting
from tests.service_app import USERS, Worker, event, make_served, name_champion
from tests.serving_bundle import N_ITEMS, START, UNKNOWN_ITEMS


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are enough, in the process that is started, too."""
    monkeypatch.setattr(rebuilding, "LEAST_TOLD", 3)
    monkeypatch.setattr(rebuilder, "LEAST_TOLD", 3)


def a_day(worker: Worker) -> None:
    """Events of people of the snapshot and of others, an item that came, one that went, and a person who was forgotten."""
    worker("PUT", "/items/fresh", {"title": "Fresh"})
    random = np.random.default_rng(3)
    for number in range(60):
        user, item = f"u{random.integers(0, USERS + 5)}", f"i{random.integers(0, N_ITEMS)}"
        worker.tell(event(f"e{number}", user, item, at=START + number))
    worker.tell(*(event(f"f{user}", f"u{user}", "fresh", at=START + 100) for user in range(8)))
    worker.tell(event("g", "u1", "gone", at=START + 101))
    worker("DELETE", "/items/gone")
    worker("DELETE", "/users/u2")


def member_of(worker: Worker, scorer: str) -> ItemEdges:
    member = worker.service.model.engine.members[scorer]
    assert isinstance(member, ItemEdges)
    return member


def edges_of(offsets: Any, targets: Any, weights: Any) -> dict[tuple[int, int], float]:
    """Weight by source and target; what weighs nothing is no edge."""
    found = zip(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)).tolist(), targets.tolist(), weights.tolist(), strict=True)
    return {(source, target): weight for source, target, weight in found if weight}


def refitted(worker: Worker, scorer: type[Cooccurrence | Linear]) -> ItemGraph:
    """A scorer fitted on what the worker knows of everybody."""
    live = worker.service.model
    view = worker.service.store.view(live.champion.snapshot)
    told = [f"u{user}" for user in range(USERS + 5)]
    queries = [live.rules.query(user, view.history(user, 1000)) for user in view.users(told)]
    view.close()
    index = {item: dense for item, dense in live.engine.item_index.items() if item != "gone"}
    histories = build_histories(queries, index, live.engine.names, live.engine.clock)
    return scorer(**live.engine.artefact.manifest.scorers[scorer.family]).fit(histories, len(live.items))


def until(worker: Worker, holds: Callable[[], bool]) -> None:
    waiting.until(lambda: worker.rest(0.1) or holds(), 0)


@pytest.mark.usefixtures("few")
def test_edges_are_those_of_a_refit_and_workers_take_them(home: Path) -> None:
    with Worker(home) as worker, Worker(home) as other:
        worker("PUT", "/items/gone", {"title": "Gone"})  # so that items have other numbers in the file
        other.rest(0.5)
        a_day(worker)
        other.ask(user_id="u1")
        before, versions = worker.ask(user_id="u1", k=50)["items"], {one: member_of(one, "linear").base.version for one in (worker, other)}
        path = rebuilt_file(home, "1")
        _, made = rebuild(Champion.read(home / CHAMPION), home / "shop.db", 0)
        assert made is not None
        made.write(path)
        until(worker, lambda: worker.ask(user_id="u1", k=50)["items"] != before)
        for one in (worker, other):
            until(one, lambda one=one: member_of(one, "linear").base.version > versions[one])
            for scorer in (Cooccurrence, Linear):
                fit, found = refitted(worker, scorer), member_of(one, scorer.family)
                wanted = edges_of(fit.offsets, fit.targets, fit.weights)
                assert edges_of(*found.edges.packed()) == pytest.approx(wanted, abs=1e-5)
                np.testing.assert_allclose(found.base.values, fit.base.values, atol=1e-5)
                fresh = one.service.model.engine.item_index["fresh"]
                assert any(source == fresh for source, _ in wanted), "an item that came by day has edges"
        worker("PUT", "/items/later", {"title": "Later"})
        assert "later" in [item["item_id"] for item in worker.ask(user_id="u1", k=200)["items"]]


def test_a_few_events_change_nothing_and_a_damaged_file_neither(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Worker(home) as worker:
        worker.tell(event("e1", "u1", "i1"))
        reached, made = rebuild(Champion.read(home / CHAMPION), home / "shop.db", 0)
        assert made is None
        assert reached == 1
        before = worker.ask(user_id="u1")["items"]
        rebuilt_file(home, "1").write_bytes(b"nothing")
        until(worker, lambda: caplog.text.count("the edges of before go on") == 1)
        assert worker.ask(user_id="u1")["items"] == before
        other = {"offsets": np.zeros(4, np.int64), "targets": np.zeros(0, np.int32), "weights": np.zeros(0, np.float32)}
        Rebuilt({"cooccurrence": {**other, "popularity": np.ones(3, np.int64)}}, []).write(rebuilt_file(home, "1"))
        until(worker, lambda: caplog.text.count("the edges of before go on") == 2)
        assert worker.ask(user_id="u1")["items"] == before, "edges of another catalogue"


def test_it_is_done_when_enough_was_told_or_somebody_was_forgotten(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Rebuilder(home, home / "shop.db")
    assert not watch.look(), "there is no store yet"
    with Worker(home) as worker:
        old = rebuilt_file(home, "0")
        old.write_bytes(b"of a version before")
        worker.tell(*(event(f"e{number}", "u1", f"i{number % (N_ITEMS - UNKNOWN_ITEMS)}", at=START + number) for number in range(999)))
        assert not watch.look(), "too few"
        worker.tell(event("last", "u2", "i1"))
        assert watch.look()
        assert not old.exists()
        assert not watch.look(), "nothing came since"
        worker("DELETE", "/users/u3")
        assert watch.look()
        assert not watch.look()
    found = Rebuilt.read(rebuilt_file(home, "1"))
    assert {scorer: len(arrays["popularity"]) for scorer, arrays in found.arrays.items()} == {"cooccurrence": N_ITEMS, "linear": N_ITEMS}
    monkeypatch.setattr(rebuilding, "MOST_EVENTS", 10)
    with pytest.raises(Exception, match="more than 10 events"):
        rebuild(Champion.read(home / CHAMPION), home / "shop.db", 0)


def test_a_model_without_such_scorers_is_left_alone(tmp_path: Path) -> None:
    made = make_served(tmp_path / "made", scorers=("graph",))
    name_champion(tmp_path, made)
    watch = Rebuilder(tmp_path, tmp_path / "shop.db")
    with Worker(tmp_path) as worker:
        worker.tell(event("e1", "u1", "i1"))
        worker("DELETE", "/users/u3")
        assert not watch.look()
        assert rebuild(Champion.read(tmp_path / CHAMPION), tmp_path / "shop.db", 0) == (NOTHING, None)
    assert not rebuilt_file(tmp_path, "1").exists()


@pytest.mark.usefixtures("few")
def test_without_the_snapshot_the_edges_of_the_night_stay(home: Path) -> None:
    replace(Champion.read(home / CHAMPION), snapshot=None).write(home / CHAMPION)
    with Worker(home) as worker:
        worker.tell(*(event(f"e{number}", "u1", f"i{number}", at=START + number) for number in range(6)))
        assert rebuild(Champion.read(home / CHAMPION), home / "shop.db", 0) == (NOTHING, None)


@pytest.mark.usefixtures("few")
def test_users_whom_the_night_leaves_out_count_in_no_edge(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Worker(home) as worker:
        worker.tell(*(event(f"e{number}", "few", f"i{number}", at=START + number) for number in range(4)))
        found = []
        for least in (1, 5, 1000):
            monkeypatch.setitem(worker.service.model.engine.artefact.manifest.meta["prepare"], "min_user_events", least)
            monkeypatch.setattr(rebuilding, "Artefact", type("Opened", (), {"open": lambda _: worker.service.model.engine.artefact}))
            _, made = rebuild(Champion.read(home / CHAMPION), home / "shop.db", 0)
            assert made is not None
            found.append(made.arrays["cooccurrence"]["popularity"].sum())
        assert found[0] - 4 == found[1]
        assert found[2] == 0


def test_one_that_failed_is_done_again_as_long_as_somebody_was_forgotten(home: Path, tmp_path: Path) -> None:
    watch, champion = Rebuilder(home, home / "shop.db"), Champion.read(home / CHAMPION)
    with Worker(home) as worker:
        worker("DELETE", "/users/u3")
        whole, part = rebuilt_file(home, "1"), home / f".{rebuilt_file(home, '1').name}.12.34"
        whole.write_bytes(b"knows u3")
        part.write_bytes(b"of a process that was killed")
        assert sorted(rebuilt_files(home)) == [part, whole]
        replace(champion, snapshot=tmp_path / "away").write(home / CHAMPION)
        assert not watch.look()
        assert not rebuilt_files(home), "no worker takes what knows somebody who was forgotten"
        champion.write(home / CHAMPION)
        assert watch.look()
        assert not watch.look()
    assert rebuilt_files(home) == [whole]


def test_the_process_ends_with_the_service(home: Path) -> None:
    words = [str(home), str(home / "shop.db"), str(rebuilt_file(home, "1")), "0", "1"]  # as one whose parent is gone
    done = subprocess.run([sys.executable, "-m", "nightloom.serving.rebuild", *words], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
