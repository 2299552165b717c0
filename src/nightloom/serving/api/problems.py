"""Errors as problem+json (RFC 9457), without traces; each names the field where there is one."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from nightloom.core.errors import InputError
from nightloom.serving.refusals import Conflict, Forged
from nightloom.serving.store import CentralUnavailable, StoreBusy, StoreClosed, StoreFull, WriteRefused

log = logging.getLogger("nightloom.serving")
TYPE = "application/problem+json"
REQUEST = "nightloom.request"
"""Where a request's scope says its id."""
SOON = {"retry-after": "1"}
TEXT: Mapping[str, Any] = {"type": "string"}
FAULT: Mapping[str, Any] = {"type": "object", "required": ["field", "message"], "properties": {"field": TEXT, "message": TEXT}}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "errors": {"type": "array", "items": FAULT},
    },
}
DESCRIBED: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is refused; `errors` names the fields.", "content": {TYPE: {"schema": SCHEMA}}},
    "5XX": {"description": "The service could not do it; nothing is kept by halves.", "content": {TYPE: {"schema": SCHEMA}}},
}
"""What every operation may answer besides."""
STATUSES: Mapping[type[Exception], int] = {
    StoreFull: 507,
    StoreBusy: 429,
    StoreClosed: 503,
    CentralUnavailable: 503,
}


def problem(
    status: int, detail: str, errors: Sequence[Mapping[str, str]] = (), headers: Mapping[str, str] | None = None, title: str | None = None
) -> Response:
    """An answer that says what was wrong.

    Args:
        status: of HTTP.
        detail: in words.
        errors: `field` and `message` of each fault of the request.
        headers: more headers.
        title: what the status means; None: HTTP's own words.
    """
    body: dict[str, Any] = {"type": "about:blank", "title": title or HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors:
        body["errors"] = list(errors)
    return Response(json.dumps(body).encode(), status, headers, TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of an app so."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(InputError, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _fault)
    for kind in STATUSES:
        app.add_exception_handler(kind, _store)


async def _invalid(_: Request, error: Exception) -> Response:
    faults = error.errors()[:20] if isinstance(error, RequestValidationError) else []
    if any(one["type"] == "json_invalid" for one in faults):
        return problem(400, "body: it is no JSON", [{"field": "body", "message": "it is no JSON"}])
    found = [fault_of(one) for one in faults]
    return problem(422, "; ".join(f"{one['field']}: {one['message']}" for one in found[:5]), found)


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = {"allow": _methods(request)} if error.status_code == 405 else error.headers
    return problem(error.status_code, str(error.detail), headers=headers)


def _methods(request: Request) -> str:
    """What a path takes; the framework's own answer names the first route of the path alone."""
    known: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    shapes = {re.sub(r"\{[^}]*\}", ".+", path): said for path, said in known.items()}
    found = {method.upper() for shape, said in shapes.items() if re.fullmatch(shape, request.url.path) for method in said}
    return ", ".join(sorted(found))


async def _gone(_: Request, __: Exception) -> Response:
    return problem(408, "The request did not come whole.")  # for the counters and the log


async def _refused(_: Request, error: Exception) -> Response:
    if error.__cause__ is not None and isinstance(error, WriteRefused):  # the store's own words name its file
        return problem(422, "a value can not be stored")
    status = 409 if isinstance(error, Conflict) else 403 if isinstance(error, Forged) else 422
    field, colon, message = str(error).partition(": ")
    named = [{"field": field, "message": message}] if colon and " " not in field else []
    return problem(status, str(error), named)


async def _store(_: Request, error: Exception) -> Response:
    status = next(status for kind, status in STATUSES.items() if isinstance(error, kind))
    log.warning("store: %s", error)
    words = {
        507: "The disk of the service is full. Nothing of this request was kept; send it again when there is space.",
        429: "More writes wait than the queue holds. Send the request again a little later.",
        503: "The write could not be confirmed. Send the request again: what was stored already is not stored twice.",
    }
    return problem(status, words[status], headers=SOON)


async def _fault(request: Request, _: Exception) -> Response:
    return problem(500, f"The service failed. Its log says why, under request {request.scope[REQUEST]}.")


def fault_of(error: Mapping[str, Any], within: str | None = None) -> dict[str, str]:
    """Field and message of a fault that pydantic found.

    Args:
        error: pydantic's.
        within: what the field belongs to, such as a line; None: the request, whose place comes first in the field.
    """
    where = error["loc"] if within is None else ("body", within, *error["loc"])
    return {"field": _field(where), "message": _words(error)}


def _field(where: Sequence[Any]) -> str:
    """Where in the request, such as `events.3.timestamp`."""
    return ".".join(str(one) for one in where[1:]) or str(where[0] if where else "body")


def _words(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).removeprefix("Value error, ")
