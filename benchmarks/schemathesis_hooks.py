"""What schemathesis does not know by itself: lines of JSON as a body."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_lines(_: Any, value: Any) -> bytes:
    """A value a line."""
    if isinstance(value, bytes):
        return value
    return "\n".join(json.dumps(one) for one in (value if isinstance(value, list) else [value])).encode()
