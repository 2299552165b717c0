"""A table from a SQL database by URL, through SQLAlchemy; passwords never reach a message."""

from __future__ import annotations

import difflib
import os
import re
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from nightloom.core.errors import InputError

FORMS = "sqlite:///file.db?table=NAME, postgresql://user@host/db?table=NAME, or ?query=SELECT..."
PASSWORD = "NIGHTLOOM_SQL_PASSWORD"
"""Environment variable with the password; a config with one in its address is refused."""
CONNECT_SECONDS = 10
QUERY = re.compile(r"[?&]query=")
READS = re.compile(r"\s*(?:(?:--[^\n]*\n|/\*.*?\*/|\()\s*)*(?:select|with|values|table)\b", re.IGNORECASE | re.DOTALL)
"""How a query that reads begins, perhaps after comments."""


def read_sql(address: str, name: str) -> tuple[pd.DataFrame, str]:
    """Read a table, view or query.

    A table with a primary key is read in its order, so that the same content gives the same snapshot.

    Args:
        address: a SQLAlchemy URL with `table=` (perhaps `schema.table`) or `query=` among its parameters.
        name: which table this is, for messages.

    Returns:
        The rows (integers stay integers next to missing values, lists stay lists), and the address without password for messages.

    Raises:
        InputError: the address cannot be used, the server cannot be reached, or it has no such table.
    """
    url, table, query = _parse(address, name)
    label = f"{shown(url)} ({f'table {table}' if table else 'query'})"
    try:
        engine = reading_engine(url)
    except NoSuchModuleError:
        raise InputError(f"{name}: {label}: there is no database kind '{url.drivername}'. Write {FORMS}") from None
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name}: {label} needs the Python package {error.name}. For PostgreSQL: pip install 'nightloom[postgres]'"
        ) from None
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        # `from None`: the chained error may hold the whole address.
        raise InputError(
            f"{name}: {label} cannot be reached: {cause(error, url)}. Check host, database and user in `data.{name}`, "
            f"that the server runs, and the password in the environment ({PASSWORD})."
        ) from None
    with connection:
        try:
            # As text(), so that % is kept; a colon before a word would otherwise be a parameter.
            statement = sa.text(re.sub(r"(?<![:\w\\]):(?=\w)", r"\\:", query)) if query else _select(connection, table, label, name)
            result = connection.execute(statement)
            if not result.returns_rows:
                raise InputError(f"{name}: {label}: the query gives no rows. Write a SELECT in `data.{name}`; nothing else is run.")
            names, rows = list(result.keys()), [tuple(row) for row in result]
        except SQLAlchemyError as error:
            raise InputError(f"{name}: {label} cannot be read: {cause(error, url)}. Correct `data.{name}`.") from None
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    frame = pd.DataFrame({at: _column(values) for at, values in enumerate(columns)})
    return frame.set_axis(names, axis=1), label


def _parse(address: str, name: str) -> tuple[URL, str, str]:
    """The address without our own parameters, the table, the query (one of the two is empty)."""
    scheme = address.partition("://")[0]
    # The query is taken as it is written to its end: in an address, % and + would be read as signs.
    bare, query = QUERY.split(address, maxsplit=1) if QUERY.search(address) else (address, "")
    try:
        url = make_url(bare)
    except (ArgumentError, ValueError):
        raise InputError(
            f"{name}: the address that begins with {scheme}:// cannot be understood. Write a file, a folder, {FORMS}"
        ) from None
    table = _one(url, "table")
    if bool(table) == bool(query.strip()):
        raise InputError(f"{name}: {shown(url)} must say either table= or query=. Write {FORMS}")
    if query and not READS.match(query):
        hint = " It is taken as written: write blanks, not %20." if re.match(r"\s*\w+(%20|\+)", query) else ""
        raise InputError(f"{name}: {shown(url)}: only a query that reads is run: SELECT ... or WITH ....{hint} Correct `data.{name}`.")
    url = url.difference_update_query(["table"])
    if url.username and url.password is None and PASSWORD in os.environ:
        url = url.set(password=os.environ[PASSWORD])
    if url.get_backend_name() == "sqlite" and not (url.database and Path(url.database).is_file()):
        # SQLite would make an empty database there.
        raise InputError(
            f"{name}: the SQLite file '{url.database}' does not exist. Correct `data.{name}` (sqlite:////abs/path has four slashes)."
        )
    return url, table, query


def reading_engine(url: URL) -> sa.Engine:
    """An engine that can only read: whatever the query says, the database stays as it is."""
    if url.get_backend_name() == "sqlite" and url.database:
        file = f"file:{quote(str(Path(url.database).resolve()))}?mode=ro"
        return sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(file, uri=True), poolclass=sa.pool.NullPool)
    if url.get_backend_name() == "postgresql":
        engine = sa.create_engine(url, connect_args={"connect_timeout": CONNECT_SECONDS}, poolclass=sa.pool.NullPool)
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return sa.create_engine(url, poolclass=sa.pool.NullPool)


def _one(url: URL, key: str) -> str:
    value = url.query.get(key, "")
    return value if isinstance(value, str) else value[-1]


def _select(connection: sa.Connection, table: str, label: str, name: str) -> sa.Select[Any]:
    schema, _, bare = table.rpartition(".")
    inspector = sa.inspect(connection)
    if not inspector.has_table(bare, schema=schema or None):
        there = sorted([*inspector.get_table_names(schema=schema or None), *inspector.get_view_names(schema=schema or None)])
        near = difflib.get_close_matches(bare, there, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise InputError(
            f"{name}: {label}: there is no such table. {hint}There are: {', '.join(there) or 'none'}. Correct table= in `data.{name}`."
        )
    key = inspector.get_pk_constraint(bare, schema=schema or None)["constrained_columns"]
    return sa.select(sa.text("*")).select_from(sa.table(bare, schema=schema or None)).order_by(*(sa.column(column) for column in key))


def _column(values: tuple[Any, ...]) -> pd.Series:
    """Typed where nothing is missing; pandas would else turn integers into floats."""
    column = pd.Series(values, dtype=object)
    return column if column.isna().any() else column.infer_objects()


def shown(url: URL) -> str:
    """The address without password and parameters, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def cause(error: SQLAlchemyError, url: URL) -> str:
    """What the driver says, on one line, without the password."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    return text.replace(url.password, "***") if url.password else text
