"""The storefront: one page, its style and its script, as they lie in the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

PAGE = Path(__file__).parents[1] / "page"
KINDS = {"index.html": "text/html", "style.css": "text/css", "app.js": "text/javascript"}
router = APIRouter(include_in_schema=False)


@cache
def _read(name: str) -> bytes:
    return (PAGE / name).read_bytes()


@router.get("/")
async def index() -> Response:
    """The page."""
    return Response(_read("index.html"), media_type=KINDS["index.html"])


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """What it loads."""
    if name not in KINDS:
        raise HTTPException(404, "There is no such file.")
    return Response(_read(name), media_type=KINDS[name])
