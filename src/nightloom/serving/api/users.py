"""What is stored of people, and its removal."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from nightloom.serving.api.answers import answer
from nightloom.serving.api.models import Id
from nightloom.serving.service import Service
from nightloom.serving.store.writes import Forget

router = APIRouter(tags=["users"])


@router.get("/users/{user_id:path}")
async def get_user(
    user_id: Id,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=r"^-?[0-9]{1,18}_-?[0-9]{1,18}$", description="`next` of the page before.")] = None,
) -> Response:
    """A user's events, the latest first. A user without events is one whom nobody knows yet."""
    service: Service = request.app.state.service
    model = service.model
    page = model.view.user(model.key_of(user_id), limit, cursor)
    timed, items = model.rules.has_times, model.items
    lines = []
    for event in page.events:
        dense = model.engine.item_index.get(event.item_id)
        line = {"event_id": event.event_id or None, "item_id": event.item_id, "event": event.event, "value": event.value}
        when = {"timestamp": event.timestamp / 1000} if timed or event.event_id else {}
        lines.append(line | when | ({} if dense is None or dense in items.blocked else {"title": items.title(dense)}))
    return answer({"user_id": user_id, "events": lines, "next": page.next})


@router.delete("/users/{user_id:path}")
async def forget_user(user_id: Id, request: Request) -> Response:
    """Remove all that is stored of a user here, at once; the model has learned of it until the next night."""
    service: Service = request.app.state.service
    gone = await service.write(Forget(service.model.key_of(user_id)))
    return answer({"forgotten": user_id, "rows": gone})
