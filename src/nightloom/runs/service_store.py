"""Where the service keeps what happens by day: one file a recommender, and a schema in PostgreSQL where machines share one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

EVENTS_URL = "NIGHTLOOM_EVENTS_URL"
"""Environment variable with the address of PostgreSQL, such as postgresql://user@host/db."""


def store_file(root: Path, name: str) -> Path:
    """The SQLite file of a recommender's service.

    Args:
        root: the mlruns folder.
        name: of the recommender.
    """
    return root / "store" / f"{name}.db"


def central_schema(name: str) -> str:
    """The schema of a recommender in PostgreSQL, whose names have 63 characters at most."""
    whole = f"nightloom_{name}"
    return whole if len(whole) <= 63 else f"{whole[:46]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def central_address() -> str | None:
    """The address of PostgreSQL, or None where each machine is alone."""
    return os.environ.get(EVENTS_URL) or None
