"""What people did by day at the service, out of its store: a SQLite file, or PostgreSQL where machines share one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from nightloom.core.errors import InputError
from nightloom.core.names import NAME
from nightloom.core.reason_votes import VOTES, Votes, count_votes
from nightloom.data.sources.sql import PASSWORD, cause, reading_engine, shown
from nightloom.runs.service_store import EVENTS_URL, central_address, central_schema, store_file

OWN, NONE = "own", "none"
"""As `data.store`: the recommender's own store where there is one, or no store."""
EVENTS = ("event_id", "user_id", "item_id", "event", "timestamp", "value", "context", "received")


@dataclass(frozen=True)
class SaidItem:
    """What was said of an item by day; see `nightloom.serving.store.rows.Item`."""

    item_id: str
    columns: Mapping[str, Any]
    whole: bool
    deleted: bool


@dataclass(frozen=True)
class StoreRows:
    """The content of a store, without what was deleted or forgotten.

    Attributes:
        place: where it is, for messages; holds no password.
        through: writer -> last number that is among the rows.
        events: `EVENTS`, in the order of time, then arrival, then id: the same rows come in the same order from every machine.
        items: by id.
        forgotten: users whose earlier rows, in whatever table, do not count; or marks of them (`nightloom.core.privacy_key.MARK`).
    """

    place: str
    through: Mapping[int, int]
    events: pd.DataFrame
    items: Sequence[SaidItem]
    forgotten: frozenset[str]


def read_store(store: str, name: str, root: Path) -> StoreRows | None:
    """Read the store that a config names.

    Args:
        store: `data.store`: `own`, `none`, the name of another recommender, or a file.
        name: of the recommender.
        root: the mlruns folder.

    Returns:
        None where it is `none`, or `own` and the service has kept nothing yet.

    Raises:
        InputError: a store that was named is not there, or can not be read.
    """
    where = _where(store, name, root)
    found = None if where is None else _read(*where)
    if found is None and store not in (OWN, NONE):
        raise InputError(f"data.store: there is no store of a recommender '{store}'. Start its service once, or write {OWN} or {NONE}.")
    return found


def read_votes(store: str, name: str, root: Path) -> Votes:
    """What people said of reasons, by kind; empty where the service has kept nothing. Arguments and errors as of `read_store`."""
    where = _where(store, name, root)
    if where is None:
        return {}
    engine, place, schema = where
    feedback = sa.table("feedback", *(sa.column(name) for name in ("kind", "token", "item_id", "received", "feedback_id")), schema=schema)
    with _readable(engine, place, schema), engine.connect() as connection:
        if schema is not None and not sa.inspect(connection).has_table("feedback", schema=schema):
            return {}
        chosen = sa.select(feedback.c.kind, feedback.c.token, feedback.c.item_id)
        chosen = chosen.where(sa.or_(*(feedback.c.kind.startswith(f"{vote}:", autoescape=True) for vote in VOTES)))
        return count_votes(connection.execute(chosen.order_by(feedback.c.received, feedback.c.feedback_id)).tuples())


def _where(store: str, name: str, root: Path) -> tuple[sa.Engine, str, str | None] | None:
    """An engine for a store, what messages call it, and its schema; None where there is none to read.

    Raises:
        InputError: a file that was named is not there, or the address can not be understood.
    """
    if store == NONE:
        return None
    address = central_address()
    if store != OWN and not re.fullmatch(NAME, store):
        path = Path(store).expanduser()
        if not path.is_file():
            raise InputError(f"data.store: {path} does not exist. Name the file of a service's store, a recommender, {OWN} or {NONE}.")
        return reading_engine(make_url(f"sqlite:///{path}")), str(path), None
    wanted = name if store == OWN else store
    if address is not None:
        return _central(address), f"PostgreSQL ({EVENTS_URL}), schema {central_schema(wanted)}", central_schema(wanted)
    path = store_file(root, wanted)
    return (reading_engine(make_url(f"sqlite:///{path}")), str(path), None) if path.is_file() else None


def _central(address: str) -> sa.Engine:
    try:
        url = make_url(re.sub(r"^postgres://", "postgresql://", address))
        if url.get_backend_name() != "postgresql":
            raise ArgumentError
        if url.username and url.password is None and PASSWORD in os.environ:
            url = url.set(password=os.environ[PASSWORD])
        return reading_engine(url)
    except (ArgumentError, ValueError, NoSuchModuleError):
        raise InputError(f"{EVENTS_URL} can not be understood. Write postgresql://user@host/db") from None
    except ModuleNotFoundError as error:
        raise InputError(f"{EVENTS_URL} needs the Python package {error.name}: pip install 'nightloom[postgres]'") from None


def _read(engine: sa.Engine, place: str, schema: str | None) -> StoreRows | None:
    """All of it, as of one moment; None where the schema is not there."""

    def table(name: str, *columns: str) -> sa.TableClause:
        return sa.table(name, *(sa.column(column) for column in columns), schema=schema)

    events, items = table("events", *EVENTS, "deleted"), table("items", "item_id", "columns", "whole", "deleted")
    writers, forgotten = table("writers", "writer", "number"), table("forgotten", "user_id")
    with _readable(engine, place, schema), engine.connect() as connection:
        if schema is not None and not sa.inspect(connection).has_table("writers", schema=schema):
            return None
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        through = dict(connection.execute(sa.select(writers.c.writer, writers.c.number)).tuples().all())
        chosen = sa.select(*(events.c[column] for column in EVENTS)).where(events.c.deleted == 0)
        rows = connection.execution_options(yield_per=100_000).execute(
            chosen.order_by(events.c.timestamp, events.c.received, events.c.event_id)
        )
        parts = [pd.DataFrame([tuple(row) for row in part], columns=list(EVENTS)) for part in rows.partitions()]
        said = [
            SaidItem(row.item_id, json.loads(row[1]), bool(row.whole), bool(row.deleted))
            for row in connection.execute(sa.select(*items.c).order_by(items.c.item_id))
        ]
        gone = frozenset(connection.scalars(sa.select(forgotten.c.user_id)))
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(EVENTS))
    return StoreRows(place if schema else shown(engine.url) or place, through, frame, said, gone)


@contextmanager
def _readable(engine: sa.Engine, place: str, schema: str | None) -> Iterator[None]:
    """Say plainly what to do where the store can not be read in the block; the engine is done with afterwards."""
    try:
        yield
    except SQLAlchemyError as error:
        raise InputError(
            f"data.store: {place} can not be read: {cause(error, engine.url)}. If it is no longer wanted, write data.store: {NONE}. "
            f"{f'Look at {EVENTS_URL}, at the server and at {PASSWORD}.' if schema else ''}"
        ) from None
    finally:
        engine.dispose()
