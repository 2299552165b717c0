"""MLflow's SQLite database is there whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import sqlalchemy

from nightloom.runs.mlflow_store import open_store
from nightloom.runs.tracking import Tracking
from tests.postgres_server import postgres_server

CLEAN = multiprocessing.get_context("forkserver")  # forks of a process without the threads that other tests have left in this one
CLEAN.set_forkserver_preload(["mlflow.store.db.utils", "nightloom.runs.tracking"])  # imported once
KILLS = int(os.environ.get("KILLS", "5"))


def uri(root: Path) -> str:
    return f"sqlite:///{root}/mlflow.db"


def make_experiment(root: Path, name: str) -> None:
    Tracking(root).experiment(name)


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long it takes to make a database in a process of its own."""
    CLEAN.Process(target=os.getpid).start()  # the server
    took = []
    for _ in range(2):  # the first waits for the server's imports too
        root, began = tmp_path_factory.mktemp("timed"), time.monotonic()
        process = CLEAN.Process(target=open_store, args=(uri(root),))
        process.start()
        process.join()
        assert process.exitcode == 0
        took.append(time.monotonic() - began)
    return min(took)


@pytest.mark.parametrize("share", [(number + 0.5) / KILLS for number in range(KILLS)])
def test_a_kill_while_the_database_is_made_breaks_nothing(seconds: float, share: float, tmp_path: Path) -> None:
    process = CLEAN.Process(target=open_store, args=(uri(tmp_path),))
    process.start()
    time.sleep(share * seconds)
    process.kill()  # says nothing where a quick process has ended
    process.join()
    tracking = Tracking(tmp_path)
    assert tracking.experiment("shop") == tracking.experiment("shop")
    assert not list(tmp_path.glob(".mlflow.db.partial*"))


def test_processes_that_start_at_once_share_one_database(tmp_path: Path) -> None:
    processes = [CLEAN.Process(target=make_experiment, args=(tmp_path, name)) for name in ("one", "two", "three")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = {one.name for one in Tracking(tmp_path).client.search_experiments()}
    assert found >= {"nightloom-one", "nightloom-two", "nightloom-three"}


def test_processes_that_find_postgresql_empty_make_its_tables_once() -> None:
    with postgres_server() as server:
        processes = [CLEAN.Process(target=open_store, args=(server.url,)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]
        engine = sqlalchemy.create_engine(server.url, poolclass=sqlalchemy.pool.NullPool)
        assert {"experiments", "registered_models", "alembic_version"} <= set(sqlalchemy.inspect(engine).get_table_names())
