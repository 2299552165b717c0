"""Another version is to serve: workers change over, or keep the old one where the new one is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nightloom.core.queries import Query
from nightloom.serving.live import LiveModel
from nightloom.serving.model.engine import Engine
from nightloom.serving.settings import Champion
from nightloom.serving.store import Event, Store
from nightloom.serving.store.writes import AddEvents
from tests import waiting
from tests.service_app import Worker, event, ids, make_served, name_champion
from tests.serving_bundle import N_ITEMS, START


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version, of one scorer alone."""
    return make_served(tmp_path_factory.mktemp("second"), scorers=("graph",))


def until(worker: Worker, holds: Callable[[], bool]) -> None:
    waiting.until(lambda: worker.rest(0.2) or holds(), 0)


def test_a_new_version_takes_over_with_what_was_learned(home: Path, made: Path, second: Path) -> None:
    with Worker(home) as worker:
        worker.tell(event("e1", "u1", "i1"), event("e2", "new", "i2"))
        worker("PUT", "/items/fresh", {"title": "Fresh"})
        before = worker.ask(user_id="u1")
        name_champion(home, second, "2")
        until(worker, lambda: worker("GET", "/readyz").json()["version"] == "2")
        after = worker.ask(user_id="u1", k=200)
        assert after["version"] == "2"
        assert [item["score"] for item in after["items"][:10]] != [item["score"] for item in before["items"]]
        assert "fresh" in ids(after)
        assert "i1" not in ids(after)
        assert worker.ask(user_id="new")["fallback"] is None
        feedback = {"feedback_id": "f", "token": before["token"], "kind": "dismiss", "item_id": ids(before)[0], "timestamp": 1_700_000_100}
        assert worker("POST", "/feedback", feedback).json()["position"] == 1, "answers of the version before are known"
        name_champion(home, made, "1")
        until(worker, lambda: worker("GET", "/readyz").json()["version"] == "1")
        assert worker.ask(user_id="u1")["items"] == before["items"]


def test_a_new_version_is_ready_for_the_users_of_the_one_before(home: Path, second: Path) -> None:
    with Worker(home) as worker:
        asked = [f"u{user}" for user in (3, 1, 2)]
        for user in asked:
            worker.ask(user_id=user)
        worker.tell(event("e1", "u1", "i1"))
        former = worker.service.model
        name_champion(home, second, "2")
        until(worker, lambda: worker.service.model.champion.version == "2")
        assert former.engine.users.nbytes == 0, "its memory is free for the new one"
        users = worker.service.model.engine.users
        assert users.recent() == ["u1", "u2", "u3"], "the most recent ones go last where there is no room"
        for user in asked:
            one = users.get(user)
            assert one.keys is not None
            assert one.encoded == one.n - 1, "all but the last token, which depends on the time of the request"
        with Worker(home) as fresh:
            assert fresh.ask(user_id="u1", now=START + 100)["items"] == worker.ask(user_id="u1", now=START + 100)["items"]


def test_no_more_users_are_made_ready_than_there_is_room_for(made: Path) -> None:
    engine = Engine.open(made / "serving", lambda user: Query(["i1"] * 20, event_types=["buy"] * 20), cache_bytes=40_000)
    ready = list[str]()
    while engine.warm_user(f"u{len(ready)}"):
        ready.append(f"u{len(ready)}")
        assert len(ready) < 1000
    assert len(ready) >= 2
    assert engine.cached_users() == ready, "those that came first stay"
    assert engine.users.nbytes <= 40_000


def test_opening_pauses_between_small_steps_until_it_serves(home: Path, made: Path) -> None:
    store, steps = Store.open(home / "shop.db"), list[int]()
    try:
        live = LiveModel(Champion("shop", "1", made / "serving", made / "snapshot"), store, pause=lambda: steps.append(1))
        assert len(steps) >= N_ITEMS
        live.warm(["u1", "u2"], 60)
        assert live.engine.cached_users() == ["u1", "u2"]
        live.opened()
        before = len(steps)
        store.submit(AddEvents([Event("e1", "u1", "i1", "buy", START * 1000, None)])).result()
        assert live.catch_up() == 1
        assert len(steps) == before
    finally:
        live.close()
        store.close()


@pytest.mark.parametrize("fault", ["damaged", "other answers", "gone"])
def test_a_broken_version_is_refused_and_the_old_one_serves_on(home: Path, made: Path, second: Path, fault: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(second, broken)
    if fault == "damaged":
        (broken / "serving" / "network.safetensors").write_bytes(b"nothing")
    elif fault == "gone":
        shutil.rmtree(broken / "serving")
    else:
        _answer_otherwise(broken / "serving")
    with Worker(home) as worker:
        wanted = worker.ask(user_id="u1")["items"]
        name_champion(home, broken, "2")
        until(worker, lambda: "refused" in worker("GET", "/readyz").json())
        assert worker("GET", "/readyz").json()["version"] == "1"
        assert worker.ask(user_id="u1")["items"] == wanted
        assert "nightloom_version_refused 1.0" in worker("GET", "/metrics").text
        name_champion(home, second, "3")
        until(worker, lambda: worker("GET", "/readyz").json() == {"status": "ready", "name": "shop", "version": "3"})


def test_a_broken_version_that_is_taken_back_is_no_matter_any_more_and_may_come_again(home: Path, made: Path, second: Path) -> None:
    with Worker(home) as worker:
        name_champion(home, home / "nothing", "2")
        until(worker, lambda: "refused" in worker("GET", "/readyz").json())
        name_champion(home, made, "1")
        until(worker, lambda: worker("GET", "/readyz").json() == {"status": "ready", "name": "shop", "version": "1"})
        name_champion(home, second, "2")
        until(worker, lambda: worker("GET", "/readyz").json() == {"status": "ready", "name": "shop", "version": "2"})


def _answer_otherwise(folder: Path) -> None:
    """Probes that say something else than the model does, under a digest that fits."""
    from nightloom.core.digests import listing, read_sealed, write_sealed
    from nightloom.packaging.serving_format import FILE

    probes = json.loads((folder / "probes.json").read_text())
    probes[0]["scores"][0] += 1.0
    (folder / "probes.json").write_text(json.dumps(probes))
    said = read_sealed(folder / FILE)
    write_sealed(folder / FILE, said | {"files": listing(folder, FILE)})
