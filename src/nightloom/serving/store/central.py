"""PostgreSQL, where the machines of one recommender share their rows. Passwords never reach a message."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nightloom.core.errors import InputError
from nightloom.core.privacy_key import MARK
from nightloom.runs.service_store import EVENTS_URL, central_schema
from nightloom.serving.store.marks import Marks
from nightloom.serving.store.schema import CENTRAL

VERSIONS = "store_version"
"""Alembic's table in the recommender's schema."""
HEAD = "0001"
"""The migration that this code needs."""
PASSWORD = "NIGHTLOOM_SQL_PASSWORD"
CONNECT_SECONDS = 3
DEAD_MS = 10_000
"""After how long a server that does not answer counts as gone."""
ROWS = 2_000
"""Rows of a table that go over at a time."""

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Table -> rows, by column."""
KEYS = {"events": "event_id", "feedback": "feedback_id", "items": "item_id", "forgotten": "user_id"}


class Foreign(Exception):
    """Another file has sent rows under this file's number: one of them is a copy of the other."""


class Central:
    """The tables of one recommender.

    Args:
        url: SQLAlchemy address; the password may be in the environment (NIGHTLOOM_SQL_PASSWORD).
        name: of the recommender; its tables are in a schema of their own.
        marks: by which people are known who were forgotten. None: what is pushed is nobody's.

    Raises:
        InputError: the address is none of PostgreSQL.
    """

    def __init__(self, url: str, name: str, marks: Marks | None = None) -> None:
        self.schema, self._marks = central_schema(name), marks
        self._engine = engine(url).execution_options(schema_translate_map={None: self.schema})
        self._migrated = False

    def ready(self) -> None:
        """Make the tables, or bring them up to date, once.

        Raises:
            InputError: a newer Nightloom made them.
        """
        if self._migrated:
            return
        with self._engine.connect() as connection:
            if _version(connection, self.schema) != HEAD:
                self._migrate(connection)
        self._migrated = True

    def _migrate(self, connection: sa.Connection) -> None:
        from alembic import command  # here, since most starts find the tables made
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        self._lock(connection)  # until the commit: machines start together
        if not connection.scalar(sa.text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": f'"{self.schema}"'}):
            connection.execute(sa.schema.CreateSchema(self.schema))
        config = Config()
        config.set_main_option("script_location", "nightloom.serving.store:migrations")
        config.attributes.update(connection=connection, schema=self.schema)
        found = _version(connection, self.schema)
        if found is not None and found not in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}:
            raise InputError(f"{EVENTS_URL}: the tables in schema {self.schema} are a newer Nightloom's ({found}). Update Nightloom.")
        command.upgrade(config, "head")
        connection.commit()

    def _lock(self, connection: sa.Connection, shared: str = "") -> None:
        lock = int.from_bytes(hashlib.sha256(self.schema.encode()).digest()[:8], "big", signed=True)
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock{shared}(:lock)"), {"lock": lock})

    def head(self, writer: int) -> int:
        """The last number that a writer has sent; 0 before its first."""
        writers = CENTRAL.tables["writers"]
        with self._engine.connect() as connection:
            return connection.scalar(sa.select(writers.c.number).where(writers.c.writer == writer)) or 0

    def push(self, writer: int, rows: Rows, last: int) -> None:
        """Store a file's next rows, all or none; those that are there stay as they are.

        Args:
            writer: who accepted them.
            rows: numbered above what was sent, up to `last`.

        Raises:
            Foreign: another row has one of the numbers.
        """
        tables = CENTRAL.tables
        with self._engine.begin() as connection:
            # Events may go over side by side, and a user's wish to be forgotten by itself: else the two would not see each other.
            self._lock(connection, shared="" if rows.get("forgotten") else "_shared")
            try:
                for name, said in rows.items():
                    if said:
                        connection.execute(_upsert(tables[name], said))
            except sa.exc.IntegrityError as error:
                if getattr(error.orig, "pgcode", "") == "23505":  # unique_violation
                    raise Foreign from None
                raise
            _clear(connection, rows)
            self._clear_marked(connection, rows)
            head = insert(tables["writers"]).values(writer=writer, number=last)
            connection.execute(head.on_conflict_do_update(index_elements=["writer"], set_={"number": last}))

    def _clear_marked(self, connection: sa.Connection, rows: Rows) -> None:
        """Remove what comes of people who were forgotten, from a machine that did not know.

        Raises:
            InputError: another key made a mark: nobody could be known by it, so nothing is taken.
        """
        users = {row["user_id"] for name in ("events", "feedback") for row in rows.get(name, ())} - {None}
        forgotten = CENTRAL.tables["forgotten"]
        if self._marks is None or not users:
            return
        is_mark = forgotten.c.user_id.startswith(MARK, autoescape=True)
        one_a_key = sa.select(sa.func.min(forgotten.c.user_id)).where(is_mark)
        made_by = connection.scalars(one_a_key.group_by(sa.func.split_part(forgotten.c.user_id, ":", 2))).all()
        if not made_by:
            return
        self._marks.check(made_by)
        of = self._marks.among(users)
        chosen = sa.select(forgotten.c.user_id, forgotten.c.received).where(forgotten.c.user_id.in_(of))
        for mark, received in connection.execute(chosen).tuples().all():
            _delete(connection, of[mark], received)

    def forgotten(self) -> list[tuple[str, int]]:
        """Ids of people who asked to be forgotten, marks of those who were, and when, in milliseconds."""
        self.ready()
        table = CENTRAL.tables["forgotten"]
        with self._engine.connect() as connection:
            chosen = sa.select(table.c.user_id, table.c.received).order_by(table.c.received, table.c.user_id)
            return [(user, received) for user, received in connection.execute(chosen)]

    def erase(self, user: str, mark: str) -> None:
        """Remove a person's rows and the id itself; the mark, which has come before, stays in their place.

        Raises:
            NightloomError: PostgreSQL does not answer.
        """
        self.ready()
        forgotten = CENTRAL.tables["forgotten"]
        with self._engine.begin() as connection:
            self._lock(connection)
            received = connection.scalar(sa.select(forgotten.c.received).where(forgotten.c.user_id == mark))
            if received is not None:
                _delete(connection, user, received)
                connection.execute(sa.delete(forgotten).where(forgotten.c.user_id == user))

    def heads(self) -> dict[int, int]:
        """Writer -> last number, of all."""
        writers = CENTRAL.tables["writers"]
        with self._engine.connect() as connection:
            return dict(connection.execute(sa.select(writers.c.writer, writers.c.number)).tuples().all())

    def pull(self, writer: int, after: int, head: int) -> tuple[Rows, int]:
        """A writer's rows above a number, and the number up to which there are none besides."""
        found: dict[str, list[dict[str, Any]]] = {}
        with self._engine.connect() as connection:
            for name in KEYS:
                table = CENTRAL.tables[name]
                statement = sa.select(table).where(table.c.writer == writer, table.c.number > after, table.c.number <= head)
                rows = [dict(row) for row in connection.execute(statement.order_by(table.c.number).limit(ROWS)).mappings()]
                if len(rows) == ROWS:
                    head = rows[-1]["number"]
                found[name] = rows
        return {name: [row for row in rows if row["number"] <= head] for name, rows in found.items()}, head

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def engine(url: str) -> sa.Engine:
    """An engine for PostgreSQL that notices a dead server.

    Raises:
        InputError: the address is none of PostgreSQL, or its driver is not installed.
    """
    try:
        address = make_url(url.replace("postgres://", "postgresql://", 1) if url.startswith("postgres://") else url)
    except (ArgumentError, ValueError):
        raise InputError(f"{EVENTS_URL} can not be understood. Write postgresql://user@host/db") from None
    if address.get_backend_name() != "postgresql":
        raise InputError(f"{EVENTS_URL} names a database of kind '{address.drivername}'. Write postgresql://user@host/db")
    if address.username and address.password is None and PASSWORD in os.environ:
        address = address.set(password=os.environ[PASSWORD])
    options = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": DEAD_MS, "application_name": "nightloom"}
    try:
        return sa.create_engine(address, connect_args=options, pool_size=1, max_overflow=1, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise InputError(f"{EVENTS_URL} needs the Python package {error.name}: pip install 'nightloom[postgres]'") from None


def told(error: SQLAlchemyError) -> str:
    """What the driver says, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


def _version(connection: sa.Connection, schema: str) -> str | None:
    """The migration that the tables are at, or None where there are none."""
    if connection.scalar(sa.text("SELECT to_regclass(:name) IS NULL"), {"name": f'"{schema}".{VERSIONS}'}):
        return None
    table = sa.table(VERSIONS, sa.column("version_num"), schema=schema)
    found: str | None = connection.scalar(sa.select(table.c.version_num))
    return found


def _upsert(table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> Any:
    """The statement that stores rows where they are new, or newer than what is there.

    The rows are one parameter, so that one round trip carries them: 2,000 took .12 s on busy cores, and .48 s one by one.
    """
    content = sa.cast(sa.literal(json.dumps([dict(row) for row in rows]), sa.Text()), sa.JSON())
    columns = [sa.column(column.name, column.type) for column in table.columns]
    given = sa.func.json_to_recordset(content).table_valued(*columns, name="given").render_derived(with_types=True)
    statement = insert(table).from_select([column.name for column in columns], sa.select(*given.c))
    new, old = statement.excluded, table.c
    wins = {
        "events": lambda: sa.and_(new.deleted == 1, old.deleted == 0),
        "items": lambda: sa.tuple_(new["changed"], new["columns"]) > sa.tuple_(old["changed"], old["columns"]),
        "forgotten": lambda: new.received > old.received,
    }
    if table.name not in wins:
        return statement.on_conflict_do_nothing(index_elements=[KEYS[table.name]])
    changed = {column.name: new[column.name] for column in table.columns if not column.primary_key}
    return statement.on_conflict_do_update(index_elements=[KEYS[table.name]], set_=changed, where=wins[table.name]())


def _delete(connection: sa.Connection, user: str, received: int) -> None:
    """Delete what was received of a person until some moment."""
    for name in ("events", "feedback"):
        table = CENTRAL.tables[name]
        connection.execute(sa.delete(table).where(table.c.user_id == user, table.c.received <= received))


def _clear(connection: sa.Connection, rows: Rows) -> None:
    """Remove what was received of forgotten users before they asked, whether it came before or comes now."""
    users = {row["user_id"] for name in ("events", "feedback", "forgotten") for row in rows.get(name, ())} - {None}
    forgotten = CENTRAL.tables["forgotten"]
    for name in ("events", "feedback"):
        table = CENTRAL.tables[name]
        same = sa.and_(table.c.user_id == forgotten.c.user_id, table.c.received <= forgotten.c.received)
        connection.execute(sa.delete(table).where(same, table.c.user_id == sa.any_(sa.literal(sorted(users), sa.ARRAY(sa.Text)))))
