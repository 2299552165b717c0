"""Whether the service lives, what it serves, and its counters."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from nightloom import __version__
from nightloom.serving.api.answers import answer
from nightloom.serving.api.metrics import render
from nightloom.serving.api.problems import SOON, problem
from nightloom.serving.service import Service

router = APIRouter(tags=["system"])


@router.get("/healthz")
async def healthz() -> Response:
    """Whether this worker lives."""
    return answer({"status": "alive"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Whether this worker answers, and with which version."""
    service: Service = request.app.state.service
    if service.live is None:
        return problem(503, "The model is being opened.", headers=SOON)
    said = {"status": "ready", "name": service.live.champion.name, "version": service.live.champion.version}
    told = {"refused": service.problem, "rules_refused": service.rules_problem}
    return answer(said | {name: problem for name, problem in told.items() if problem})


@router.get("/version")
async def version(request: Request) -> Response:
    """What serves: the model's version and size, and the event names that it knows."""
    service: Service = request.app.state.service
    said = {"nightloom": __version__}
    if service.live is None:
        return answer(said)
    live = service.live
    names = live.rules.names
    model = {
        "name": live.champion.name,
        "version": live.champion.version,
        "items": len(live.items),
        "columns": live.items.columns,
        "events": list(names.known),
        "default_event": names.default,
        "positive_min_value": live.rules.least,
    }
    return answer(said | {"model": model})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counters of all workers, in Prometheus's text format."""
    state = request.app.state
    text = render(state.folder, state.metrics.state(state.gauges()))
    return Response(text, media_type="text/plain; version=0.0.4")
