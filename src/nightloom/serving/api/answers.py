"""Answers as encoded bytes: nothing is validated that the service made itself."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.responses import Response


def answer(content: Any, status: int = 200) -> Response:
    """JSON."""
    return Response(to_json(content, inf_nan_mode="null"), status, media_type="application/json")
