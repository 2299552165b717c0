"""The tables, once for the local SQLite file and once for PostgreSQL; both are made from what is said here.

Each row carries the writer that accepted it, a number drawn at random for each file, and this writer's own count. Whoever has read a
writer up to a number misses nothing later: a writer commits in the order of its count, which a sequence shared by writers would not.
A row that changes (an item, a deleted event) takes the next number. Within a file `sequence` orders all rows, those of other machines
too, by their arrival.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SEQUENCE = "sequence"


def _rows(name: str, metadata: sa.MetaData, *columns: sa.Column[Any], local: bool) -> sa.Table:
    """A table of rows that are numbered; the first column is their id."""
    sequence = [sa.Column(SEQUENCE, sa.Integer, primary_key=True)] if local else []
    key = columns[0]
    key.nullable = False
    if local:
        key.unique = True
    else:
        key.primary_key = True
    numbered = (sa.Column("writer", BIG, nullable=False), sa.Column("number", BIG, nullable=False))
    return sa.Table(name, metadata, *sequence, *columns, *numbered, sa.UniqueConstraint("writer", "number"))


def _tables(local: bool) -> sa.MetaData:
    metadata = sa.MetaData()
    replaced = [sa.Column("replaced", sa.Integer)] if local else []  # the sequence of a deleted event before it was deleted
    events = _rows(
        "events",
        metadata,
        sa.Column("event_id", sa.Text),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("timestamp", BIG, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("context", sa.Text),
        sa.Column("received", BIG, nullable=False),
        sa.Column("deleted", sa.Integer, nullable=False, server_default="0"),
        *replaced,
        local=local,
    )
    feedback = _rows(
        "feedback",
        metadata,
        sa.Column("feedback_id", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("timestamp", BIG, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("item_id", sa.Text),
        sa.Column("position", BIG),
        sa.Column("depth", BIG),
        sa.Column("value", sa.Double),
        sa.Column("event", sa.Text),
        sa.Column("received", BIG, nullable=False),
        local=local,
    )
    _rows(
        "items",
        metadata,
        sa.Column("item_id", sa.Text),
        sa.Column("columns", sa.Text, nullable=False),
        sa.Column("whole", sa.Integer, nullable=False),
        sa.Column("deleted", sa.Integer, nullable=False),
        sa.Column("version", BIG, nullable=False),
        sa.Column("changed", BIG, nullable=False),
        local=local,
    )
    _rows("forgotten", metadata, sa.Column("user_id", sa.Text), sa.Column("received", BIG, nullable=False), local=local)
    sa.Index("events_by_user", events.c.user_id, events.c.timestamp)
    sa.Index("feedback_by_user", feedback.c.user_id)
    sa.Table(
        "writers",
        metadata,
        sa.Column("writer", BIG, primary_key=True, autoincrement=False),
        sa.Column("number", BIG, nullable=False),  # the last that is here
    )
    if local:
        sa.Table(
            "state",
            metadata,
            sa.Column("one", sa.Integer, sa.CheckConstraint("one = 1"), primary_key=True),
            sa.Column("sequence", sa.Integer, nullable=False),  # the last that was given
            sa.Column("writer", sa.Integer, nullable=False),  # this file's own
            sa.Column("sent", sa.Integer, nullable=False),  # the last own number that PostgreSQL has
        )
    return metadata


LOCAL, CENTRAL = _tables(local=True), _tables(local=False)
