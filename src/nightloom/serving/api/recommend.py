"""Recommendations, and items near to others."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from nightloom.serving.api.answers import answer
from nightloom.serving.api.models import BIGGEST_K, Id, RecommendRequest, Words
from nightloom.serving.reasons.reason_words import language_of
from nightloom.serving.service import Service

PATH = "/recommend"
router = APIRouter(tags=["recommend"])


async def recommended(state: Any, asked: RecommendRequest, languages: str) -> dict[str, Any]:
    """The answer to a request, counted.

    Args:
        state: of the app.
        asked: the request.
        languages: its header `Accept-Language`.
    """
    service: Service = state.service
    found = await service.answer(asked, language_of(languages))
    counts = state.metrics.counts
    counts["recommendations_total"] += 1
    if found["fallback"]:
        counts["fallbacks_total"] += 1
    return found


@router.post(PATH)
async def recommend(body: RecommendRequest, request: Request) -> Response:
    """The best items for a user or a history, with a token that feedback refers to."""
    return answer(await recommended(request.app.state, body, request.headers.get("accept-language", "")))


@router.get("/search")
async def search(
    request: Request,
    words: Annotated[Words, Query(alias="q", description="A title, attributes, or what is looked for in words.")],
    user_id: Annotated[Id | None, Query(description="Whose liking counts; by default what people like in general.")] = None,
    k: Annotated[int, Query(ge=1, le=BIGGEST_K)] = 10,
    page: Annotated[str | None, Query(max_length=16_384, description="`next` of the answer before.")] = None,
) -> Response:
    """Items by words: as `query` of /recommend, items of the history included."""
    service: Service = request.app.state.service
    asked = RecommendRequest(query=words, user_id=user_id, k=k, page=page, exclude_seen=False)
    request.app.state.metrics.counts["searches_total"] += 1
    return answer(await service.answer(asked))


@router.get("/similar")
async def similar(
    request: Request,
    items: Annotated[list[Id], Query(min_length=1, max_length=50, description="Item ids; say it once for each.")],
    k: Annotated[int, Query(ge=1, le=BIGGEST_K)] = 10,
) -> Response:
    """The items nearest to one or several others."""
    service: Service = request.app.state.service
    found = service.similar(items, k)
    if found is None:
        raise HTTPException(404, "None of these items is in the catalogue.")
    return answer(found)
