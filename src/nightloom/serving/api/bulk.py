"""Any number of events in one request, a line each (NDJSON): read, stored and counted as they come, so memory does not grow with them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from nightloom.serving.api.answers import answer
from nightloom.serving.api.events import store_events
from nightloom.serving.api.guard import STREAMED
from nightloom.serving.api.models import Acknowledged, NewEvent
from nightloom.serving.api.problems import fault_of
from nightloom.serving.store import StoreBusy

KINDS = ("application/x-ndjson", "application/jsonl", "application/jsonlines")
BATCH = 100
"""Events that are stored, and learned from, at a time: other requests wait no longer than these take."""
AHEAD = 4
"""Parts that are on their way to the disk at a time: one is learned from while the next is written; a slow disk takes several at once."""
LONGEST_LINE = 1 << 16
"""Bytes of a line."""
BUSY_SECONDS = 30.0
"""How long a full queue is waited for."""
MOST_TOLD = 20
"""Refused lines that the answer names."""
COUNTS = ("received", "stored", "duplicates", "refused", "unknown_items", "unknown_events")
router = APIRouter(tags=["events"])
BODY: dict[str, Any] = {
    "requestBody": {
        "content": {KINDS[0]: {"schema": {"description": "Lines, each an event of POST /events. Others are counted as refused."}}},
    }
}


@router.post(STREAMED, openapi_extra=BODY)
async def add_many_events(
    request: Request,
    ack: Annotated[Acknowledged, Query(description="`central`: each part waits until PostgreSQL has it.")] = "local",
) -> Response:
    """Store any number of events, a line of JSON each, as in POST /events.

    The answer comes when all are on the disk, and counts what became of them. Lines that are refused are named, and the others are stored.
    Where a request ends early, send it again: what was stored is not stored twice.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind not in KINDS:
        raise HTTPException(415, f"content-type: send {KINDS[0]}, an event a line.")
    counts, faults, batch = Counter(dict.fromkeys(COUNTS, 0)), list[dict[str, str]](), list[NewEvent]()
    under_way = deque[asyncio.Task[dict[str, int]]]()
    try:
        async for number, line in _lines(request):
            counts["received"] += 1
            try:
                batch.append(NewEvent.model_validate_json(line))
            except ValidationError as error:
                counts["refused"] += 1
                if len(faults) < MOST_TOLD:
                    faults.append(fault_of(error.errors(include_url=False)[0], f"{number}"))
            if len(batch) == BATCH:
                under_way.append(asyncio.create_task(_stored(request.app, batch, ack)))
                batch = []
                if len(under_way) == AHEAD:
                    counts.update(await under_way.popleft())
        if batch:
            under_way.append(asyncio.create_task(_stored(request.app, batch, ack)))
        while under_way:
            counts.update(await under_way.popleft())
    finally:  # where one part fails, the answer waits for those under way: nothing is written after it
        await asyncio.gather(*under_way, return_exceptions=True)
    return answer({name: counts[name] for name in COUNTS} | {"errors": faults})


async def _lines(request: Request) -> AsyncIterator[tuple[int, bytes]]:
    """Number and text of each line that is not empty."""
    rest, number = b"", 0
    async for part in request.stream():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            number += 1
            if line.strip():
                yield number, _short(line, number)
        _short(rest, number + 1)
    if rest.strip():
        yield number + 1, rest


def _short(line: bytes, number: int) -> bytes:
    """A line that is not too long."""
    if len(line) > LONGEST_LINE:
        raise HTTPException(413, f"Line {number} has more than {LONGEST_LINE:,} bytes. What stands before it may be stored already.")
    return line


async def _stored(app: Any, batch: list[NewEvent], ack: Acknowledged) -> dict[str, int]:
    """Store a part, and wait for a full queue: who sends is read no faster than the disk takes it."""
    ends = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return await store_events(app, batch, ack)
        except StoreBusy:
            if time.monotonic() > ends:
                raise
            await asyncio.sleep(0.05)
