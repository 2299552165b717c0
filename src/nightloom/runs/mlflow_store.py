"""Where MLflow keeps its runs, and what to do when that can not be reached."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock

from nightloom.core.errors import NightloomError
from nightloom.core.shell import typed
from nightloom.runs.mlflow_wait import connected, patient

TABLES = 7_461_201
"""Key of the lock under which MLflow's tables are made in PostgreSQL."""
LOCK_SECONDS = 30.0
"""How long a database that another process has locked is waited for."""


def tracking_uri(root: Path) -> str:
    """NIGHTLOOM_MLFLOW_URI, or the SQLite file under the mlruns folder."""
    return os.environ.get("NIGHTLOOM_MLFLOW_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def open_store(uri: str) -> None:
    """Prepare for MLflow's client: make the tables that are missing, and wait for a server as long as NIGHTLOOM_MLFLOW_WAIT says.

    An SQLite database is made beside its place and then renamed: MLflow makes its tables in many steps, and one that a kill left by halves
    would be broken for good. Of processes that start at once one makes them, in PostgreSQL too, and the others wait.

    Raises:
        NightloomError: the server does not answer.
    """
    patient(uri)
    if uri.startswith("postgresql"):
        connected(uri)
        _make_tables(uri)
        return
    path = _database(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            _make_database(path)


@cache
def _make_tables(uri: str) -> None:
    """MLflow's tables in an empty PostgreSQL database. What is wrong with it MLflow's client says."""
    import sqlalchemy
    from mlflow.store.db.utils import _all_tables_exist, _initialize_tables

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with suppress(sqlalchemy.exc.SQLAlchemyError), engine.connect() as turn:  # the lock goes with the connection
        turn.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": TABLES})
        if not _all_tables_exist(engine):
            _initialize_tables(engine)


def _make_database(path: Path) -> None:
    """MLflow's tables in a new SQLite file; what an earlier kill left is deleted."""
    import sqlalchemy
    from mlflow.store.db.utils import _initialize_tables

    for left in path.parent.glob(f".{path.name}.partial*"):
        left.unlink()
    partial = path.with_name(f".{path.name}.partial")
    engine = sqlalchemy.create_engine(f"sqlite:///{partial}", poolclass=sqlalchemy.pool.NullPool)
    _initialize_tables(engine)
    engine.dispose()
    _flush(partial)
    partial.rename(path)
    _flush(path.parent)


def _flush(place: Path) -> None:
    """Have the disk hold a file's content, or the names in a folder."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """Wait for a locked database, and say plainly what to do when MLflow can not be reached while the block runs.

    Raises:
        NightloomError: the server does not answer, or the database is locked or of another MLflow.
    """
    from mlflow.exceptions import MlflowException

    connected(uri)
    _wait_for_lock(uri)
    try:
        yield
    except MlflowException as error:
        said: BaseException | None = error
        while said is not None:  # MLflow wraps what is raised while it sends a request
            if isinstance(said, NightloomError):
                raise said from None
            said = said.__context__
        remedy = _remedy(uri, str(error))
        if remedy is None:
            raise
        raise NightloomError(remedy) from error


def _database(uri: str) -> Path | None:
    """The file of an SQLite address."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _wait_for_lock(uri: str) -> None:
    """Take and leave the write lock of an SQLite file, before MLflow fails on it with a page of traceback."""
    path = _database(uri)
    if path is None or not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            raise NightloomError(_remedy(uri, str(error)) or f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise NightloomError(f"{path} is no MLflow database ({error}). Move it away; the next night makes a new one.") from error


def _remedy(uri: str, said: str) -> str | None:
    """What to do about a failure of MLflow's store; None for one that is no matter of reaching it."""
    if "database is locked" in said:
        return (
            f"{_database(uri) or uri}: the MLflow database is locked by another process. "
            f"Find it with `fuser {_database(uri) or 'FILE'}`, let it end or stop it, then start again; finished stages are kept. "
            "Where several processes write at once, use a server: NIGHTLOOM_MLFLOW_URI=postgresql://... or http://..."
        )
    if "readonly database" in said:
        return f"{_database(uri)}: the MLflow database can not be written. Give this user the right to write the file and its folder."
    if "out-of-date database schema" in said:
        return f"{uri}: the MLflow database was made by another MLflow. Take a backup, then run `{typed('mlflow', 'db', 'upgrade', uri)}`."
    if "API request to" in said or "Max retries exceeded" in said or "OperationalError" in said:
        return f"{uri}: the MLflow server does not answer. Start it, or correct NIGHTLOOM_MLFLOW_URI ({said.splitlines()[0][:200]})."
    return None
