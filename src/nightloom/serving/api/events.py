"""What people did, and what became of recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from nightloom.core.reason_votes import VOTES, stored
from nightloom.serving.api.answers import answer
from nightloom.serving.api.models import Acknowledged, EventsRequest, FeedbackRequest, Id, NewEvent
from nightloom.serving.refusals import Conflict
from nightloom.serving.service import Service
from nightloom.serving.store import FEEDBACK_EVENTS, Event, Feedback
from nightloom.serving.store.writes import AddEvents, AddFeedback, DeleteEvent

router = APIRouter(tags=["events"])


async def store_events(app: Any, said: Sequence[NewEvent], ack: Acknowledged) -> dict[str, int]:
    """Store events; what became of them by counts."""
    service: Service = app.state.service
    key_of = service.model.key_of
    events = [Event(one.event_id, key_of(one.user_id), one.item_id, one.event, one.timestamp, one.value) for one in said]
    done = await service.write(AddEvents(events), ack)
    app.state.metrics.counts["events_total"] += done.new
    model = service.model
    known, rules = model.engine.item_index, model.rules
    unknown = sum(event.item_id not in known for event in events)
    unnamed = sum(not rules.knows(event.event) for event in events)
    return {"stored": done.new, "duplicates": done.duplicate, "unknown_items": unknown, "unknown_events": unnamed}


@router.post("/events")
async def add_events(body: EventsRequest, request: Request) -> Response:
    """Store events, each once by its id. The answer comes when they are on the disk, and every later one has learned from them."""
    return answer(await store_events(request.app, body.events, body.ack))


@router.delete("/events/{event_id:path}")
async def delete_event(event_id: Id, request: Request) -> Response:
    """Delete an event; its id is not stored again."""
    service: Service = request.app.state.service
    if not await service.write(DeleteEvent(event_id)):
        raise HTTPException(404, "There is no event of that id.")
    return answer({"deleted": event_id})


@router.post("/feedback")
async def add_feedback(body: FeedbackRequest, request: Request) -> Response:
    """Store what became of a recommendation. Its token says for whom it was, and at which place an item stood.

    A click, purchase or rating is stored as an event as well where the model knows events of that name.
    """
    service: Service = request.app.state.service
    if body.item_id is None and body.kind != "impression":
        raise Conflict(f"item_id: feedback of kind {body.kind} names one")
    if body.value is None and body.kind == "rating":
        raise Conflict("value: a rating has one")
    vote = next((one for one in VOTES if one == body.kind), None)
    if (vote is None) != (body.reason is None):
        raise Conflict("reason: feedback on a reason, and no other, says of which kind it was")
    shown = service.signer.read(body.token, "token")
    given = None if body.user_id is None else service.model.key_of(body.user_id)
    if given is not None and shown.user is not None and given != shown.user:
        raise Conflict("user_id: the recommendation was made for somebody else")
    position = None if body.item_id is None else shown.position(body.item_id)
    if body.item_id is not None and position is None:
        raise Conflict("item_id: the recommendation did not show this item")
    name = FEEDBACK_EVENTS.get(body.kind)
    user = given if given is not None else shown.user
    feedback = Feedback(
        body.feedback_id,
        body.kind if vote is None or body.reason is None else stored(vote, body.reason),
        body.token,
        body.timestamp,
        user,
        body.item_id,
        position,
        body.depth,
        body.value,
        name if name is not None and service.model.rules.knows(name) and user is not None else None,
    )
    done = await service.write(AddFeedback([feedback]), body.ack)
    request.app.state.metrics.counts["feedback_total"] += done.new
    return answer({"stored": done.new, "duplicates": done.duplicate, "position": position, "event": feedback.event})
