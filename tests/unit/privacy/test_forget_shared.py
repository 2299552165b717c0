"""Forgetting a person where machines share PostgreSQL, a real one, and where MLflow's runs and files are behind its server, a real one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from nightloom.config import config_from_dict
from nightloom.core.errors import InputError
from nightloom.data.collect import collect
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.privacy import forget as module
from nightloom.privacy import remote_files
from nightloom.privacy.forget import forget, forgotten_elsewhere
from nightloom.promotion.registry import Registry
from nightloom.runs.service_store import EVENTS_URL, central_schema, store_file
from nightloom.runs.stages import Night
from nightloom.serving.store import Event, Feedback, Store
from nightloom.serving.store.central import engine
from nightloom.serving.store.erase import erase_from_store, marks_in, wishes
from tests.postgres_server import PostgresServer, postgres_server
from tests.servers import free_port, until_it_answers
from tests.small_bundle import small_config
from tests.unit.privacy.test_forget import CANARY, holders
from tests.waiting import until

KEY = "a key of enough letters"
NAME = "shop"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def shared(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    """The server with the environment that machines have, and without the recommender's tables."""
    monkeypatch.setenv(EVENTS_URL, server.url)
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", KEY)
    yield server
    made = engine(server.url)
    with made.begin() as connection:
        connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{central_schema(NAME)}" CASCADE')
    made.dispose()


def dump(server: PostgresServer) -> str:
    """All rows of all tables, decoded."""
    made, said = engine(server.url), list[str]()
    with made.connect() as connection:
        schema = central_schema(NAME)
        for table in sa.inspect(connection).get_table_names(schema=schema):
            said += [f"{table} {tuple(row)}" for row in connection.exec_driver_sql(f'SELECT * FROM "{schema}"."{table}"')]
    made.dispose()
    return "\n".join(said)


def events(user: str, *names: str) -> list[Event]:
    return [Event(name, user, f"i{place}", "rating", 1_700_000_000_000 + place, 4.0) for place, name in enumerate(names)]


def filled(root: Path, server: PostgresServer) -> None:
    """A machine's store with rows of the canary and of ann, which are in PostgreSQL as well."""
    store = Store.open(store_file(root, NAME), server.url)
    store.add_events([*events(CANARY, "e1", "e2"), *events("ann", "e3")])
    store.add_feedback([Feedback("f1", "click", "token", 1_700_000_000_000, CANARY, "i1", 1, 10, None, None)])
    until(lambda: not store.spool)
    store.close()


def test_nothing_of_the_person_is_left_in_postgresql(shared: PostgresServer, tmp_path: Path) -> None:
    root = tmp_path / "a"
    filled(root, shared)
    assert dump(shared).count(CANARY) == 3
    done = forget(NAME, CANARY, root)
    assert done.rows == 3
    assert CANARY not in dump(shared)
    assert holders(root) == []
    assert "'ann'" in dump(shared)
    store = Store.open(store_file(root, NAME), shared.url)  # what the person does afterwards counts
    store.add_events(events(CANARY, "e9"))
    until(lambda: not store.spool)
    store.close()
    assert dump(shared).count(CANARY) == 1


def test_a_wish_that_the_service_took_is_carried_out(shared: PostgresServer, tmp_path: Path) -> None:
    root = tmp_path / "a"
    filled(root, shared)
    store = Store.open(store_file(root, NAME), shared.url)
    assert store.forget(CANARY) == 3
    until(lambda: not store.spool)
    store.close()
    assert dump(shared).count(CANARY) == 1
    for path in (store_file(root, NAME), store_file(tmp_path / "b", NAME)):  # also where only PostgreSQL knows of it
        assert [user for user, _ in wishes(path, shared.url)] == [CANARY]
    forget(NAME, CANARY, root)
    assert CANARY not in dump(shared)
    assert wishes(store_file(root, NAME), shared.url) == []


@pytest.mark.parametrize("step", ["erase_from_store", "central", "vacuum", "_delete_stages"])
def test_killed_at_any_point_and_started_again_it_ends_the_same(
    shared: PostgresServer, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nightloom.serving.store import erase
    from nightloom.serving.store.central import Central

    root = tmp_path / "a"
    filled(root, shared)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place, name = {"central": (Central, "erase"), "vacuum": (erase, "connect")}.get(step, (module, step))
    really = getattr(place, name)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, (lambda path, **said: really(path, **said) if said else killed()) if step == "vacuum" else killed)
        with pytest.raises(KeyboardInterrupt):
            forget(NAME, CANARY, root)
    forget(NAME, CANARY, root)
    assert CANARY not in dump(shared)
    assert holders(root) == []
    assert sorted(line.split()[0] for line in dump(shared).splitlines()) == [
        "events",  # of ann
        "forgotten",  # by the id
        "forgotten",  # and by the pseudonym that the key gives it
        "store_version",
        "writers",
    ]


def test_a_machine_that_did_not_know_brings_nothing_back(shared: PostgresServer, tmp_path: Path) -> None:
    """Its outbox holds events of the person, its snapshot does, and its CSV."""
    root, other = tmp_path / "a", tmp_path / "b"
    filled(root, shared)
    away = Store.open(store_file(other, NAME))  # without PostgreSQL: as if that did not answer
    away.add_events([*events(CANARY, "old1", "old2"), *events("bob", "b1")])
    away.close()
    rows = [(user, f"i{item}", 1_600_000_000 + item, 5) for user in ("bob", CANARY) for item in range(3)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "value"]).to_csv(tmp_path / "events.csv", index=False)
    data = config_from_dict({"name": NAME, "data": {"events": str(tmp_path / "events.csv"), "store": "none"}}).data
    before = collect(NAME, data, other)
    view = away_view(other, before.path, shared)
    assert view.history(CANARY, 10)
    forget(NAME, CANARY, root)
    store = Store.open(store_file(other, NAME), shared.url)
    until(lambda: not store.spool and marks_in(store.path))
    until(lambda: not view.history(CANARY, 10))  # neither its own events nor those of its snapshot
    assert [one.event_id for one in view.history("bob", 10)][-1] == "b1"
    store.close()
    view.close()
    assert CANARY not in dump(shared)
    assert "b1" in dump(shared)
    assert forgotten_elsewhere(NAME, other) == [CANARY]
    forget(NAME, CANARY, other, elsewhere=True)
    assert forgotten_elsewhere(NAME, other) == []
    assert holders(other) == []
    own = data.model_copy(update={"store": "own"})
    assert set(read_snapshot(collect(NAME, own, other).path).events["user_id"]) == {"bob", "ann"}


def away_view(root: Path, snapshot: Path, server: PostgresServer):
    store = Store.open(store_file(root, NAME))
    view = store.view(snapshot)
    store.close()
    return view


def test_a_machine_without_a_trace_keeps_the_person_out_of_its_own_source(shared: PostgresServer, tmp_path: Path) -> None:
    filled(tmp_path / "a", shared)
    forget(NAME, CANARY, tmp_path / "a")
    other = tmp_path / "c"
    assert forgotten_elsewhere(NAME, other) == []
    pd.DataFrame({"user_id": [CANARY, "bob"], "item_id": ["i1", "i2"], "timestamp": [1_600_000_000, 1_600_000_001]}).to_csv(
        tmp_path / "events.csv", index=False
    )
    data = config_from_dict({"name": NAME, "data": {"events": str(tmp_path / "events.csv"), "store": "none"}}).data
    assert set(read_snapshot(collect(NAME, data, other).path).events["user_id"]) == {"bob"}


def test_another_key_is_refused_and_nothing_goes_over(shared: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "a", shared)
    forget(NAME, CANARY, tmp_path / "a")
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", "another key, of some length")
    store = Store.open(store_file(tmp_path / "b", NAME), shared.url)
    store.add_events(events(CANARY, "old"))
    until(lambda: "NIGHTLOOM_PRIVACY_KEY" in str(store.central_error))
    assert CANARY not in dump(shared)
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", KEY)
    store.close()
    monkeypatch.delenv(EVENTS_URL)
    with pytest.raises(InputError, match="Set NIGHTLOOM_EVENTS_URL"):
        forget(NAME, CANARY, tmp_path / "a")


def test_a_user_id_that_is_no_mark(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store" / "shop.db")
    with pytest.raises(InputError, match="no id of a person begins with forgotten:"):
        store.forget("forgotten:me")
    store.close()
    assert erase_from_store(tmp_path / "none.db", CANARY, "forgotten:0:0") == 0


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server's address, and the folder that nobody but the server reads."""
    home = tmp_path_factory.mktemp("mlflow-server")
    port = free_port()
    line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    line += ["--backend-store-uri", f"sqlite:///{home}/runs.db", "--artifacts-destination", str(home / "files")]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(line, cwd=home, stdout=log, stderr=log, start_new_session=True)
    try:
        until_it_answers(f"http://127.0.0.1:{port}/health", process, home / "log")
        yield f"http://127.0.0.1:{port}", home
    finally:
        import os
        import signal

        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def a_night(root: Path, number: str, scratch: Path) -> str:
    """Runs with files as a night leaves them; gives the parent's id."""
    scratch.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"user_id": [CANARY, "ann"], "rank": [1, 2]}).to_parquet(scratch / "per_user.parquet", index=False)
    (scratch / "slices.json").write_text("{}")
    registry = Registry(root)
    tracking, client = registry.tracking, registry.client
    with tracking.night(Night(small_config(NAME), number, root), {}) as run:
        client.log_text(run, f"<summary>User {CANARY}</summary><p>ann</p>", "report.html")
        client.log_dict(run, {"sample_lists": {"users": [{"user_id": CANARY}, {"user_id": "ann"}]}}, "report.json")
        client.log_dict(run, {"rows": [{"user": CANARY}, {"user": "ann"}]}, "deeper/still/table.json")
        tracking.log_family(run, "nightloom", {}, tags={}, files=[scratch / "per_user.parquet", scratch / "slices.json"])
        return run


@pytest.mark.parametrize("cut", [None, 0, 2])
def test_files_behind_mlflows_server_are_gone_through(
    mlflow_server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int | None
) -> None:
    address, kept = mlflow_server
    shutil.rmtree(kept / "files", ignore_errors=True)
    monkeypatch.setenv("NIGHTLOOM_MLFLOW_URI", address)
    root = tmp_path / "mlruns"
    first = a_night(root, "20260101-020000", tmp_path / "scratch")
    a_night(root, "20260102-020000", tmp_path / "scratch")
    Registry(root).client.delete_run(first)  # a deleted run's files are still there
    assert len(holders(kept)) == 8
    if cut is not None:
        calls, really = iter(range(100)), remote_files.redact

        def killed(path: Path, user: str) -> bool:
            if next(calls) == cut:
                raise KeyboardInterrupt
            return really(path, user)

        with monkeypatch.context() as patch:
            patch.setattr(remote_files, "redact", killed)
            with pytest.raises(KeyboardInterrupt):
                forget(NAME, CANARY, root)
    done = forget(NAME, CANARY, root)
    assert holders(kept) == []
    assert holders(root) == []
    assert done.left == ()
    assert done.files == {None: 8, 0: 8}.get(cut, done.files)
    (table,) = [path for path in kept.rglob("table.json") if "deeper/still" in str(path)][:1]
    assert json.loads(table.read_text()) == {"rows": [{"user": "ann"}]}
    (rows, _) = kept.rglob("per_user.parquet")
    assert pd.read_parquet(rows)["user_id"].tolist() == ["ann"]
    assert forget(NAME, CANARY, root).files == 0
