"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _numbered() -> tuple[sa.Column[int], sa.Column[int], sa.UniqueConstraint]:
    return (
        sa.Column("writer", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("writer", "number"),
    )


def upgrade() -> None:
    """Make them."""
    schema = op.get_context().version_table_schema
    op.create_table(
        "events",
        sa.Column("event_id", sa.Text(), primary_key=True),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("context", sa.Text()),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.Integer(), nullable=False, server_default="0"),
        *_numbered(),
        schema=schema,
    )
    op.create_index("events_by_user", "events", ["user_id", "timestamp"], schema=schema)
    op.create_table(
        "feedback",
        sa.Column("feedback_id", sa.Text(), primary_key=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.Text()),
        sa.Column("item_id", sa.Text()),
        sa.Column("position", sa.BigInteger()),
        sa.Column("depth", sa.BigInteger()),
        sa.Column("value", sa.Double()),
        sa.Column("event", sa.Text()),
        sa.Column("received", sa.BigInteger(), nullable=False),
        *_numbered(),
        schema=schema,
    )
    op.create_index("feedback_by_user", "feedback", ["user_id"], schema=schema)
    op.create_table(
        "items",
        sa.Column("item_id", sa.Text(), primary_key=True),
        sa.Column("columns", sa.Text(), nullable=False),
        sa.Column("whole", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        *_numbered(),
        schema=schema,
    )
    op.create_table(
        "forgotten",
        sa.Column("user_id", sa.Text(), primary_key=True),
        sa.Column("received", sa.BigInteger(), nullable=False),
        *_numbered(),
        schema=schema,
    )
    op.create_table(
        "writers",
        sa.Column("writer", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        schema=schema,
    )
