"""The catalogue: what is in it, and what is said of items by day."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from nightloom.core.errors import InputError
from nightloom.serving.api.answers import answer
from nightloom.serving.api.models import Id, ItemBody
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.live import LiveModel
from nightloom.serving.refusals import Conflict
from nightloom.serving.service import Service
from nightloom.serving.store import Item
from nightloom.serving.store.writes import DeleteItem, PatchItem, PutItem

router = APIRouter(tags=["items"])


@router.get("/items")
async def list_items(
    request: Request,
    words: Annotated[str, Query(alias="q", max_length=200, description="Words of the title or the id.")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[int, Query(ge=0, le=1 << 40, description="`next` of the page before.")] = 0,
) -> Response:
    """A page of the items that are offered, by words of their titles."""
    service: Service = request.app.state.service
    model = service.model
    found, after = model.items.page(words, cursor, limit)
    return answer({"items": [_line(model, dense) for dense in found], "next": after})


@router.get("/items/{item_id:path}")
async def get_item(item_id: Id, request: Request) -> Response:
    """What is known of an item."""
    service: Service = request.app.state.service
    model = service.model
    dense = model.items.place(item_id)
    if dense is None:
        raise HTTPException(404, "There is no item of that id.")
    return answer(_line(model, dense))


@router.put("/items/{item_id:path}")
async def put_item(item_id: Id, body: ItemBody, request: Request) -> Response:
    """Say all that is known of an item, a new one or one of the catalogue; it can be recommended from then on.

    A new item's vector is made of its text and its attributes. Where the service reads no texts, the next night does (`text: false`).
    """
    service: Service = request.app.state.service
    await _check(service, item_id, body.columns)
    said = await service.write(PutItem(item_id, body.columns))
    return answer(_said(service.model, said))


@router.patch("/items/{item_id:path}")
async def patch_item(item_id: Id, body: ItemBody, request: Request) -> Response:
    """Change some columns of an item; null takes one away."""
    service: Service = request.app.state.service
    place = service.model.items.place(item_id)
    await _check(service, item_id, ({} if place is None else service.model.items.of(place)) | body.columns)
    if place is None:
        raise HTTPException(404, "There is no item of that id.")
    said = await service.write(PatchItem(item_id, body.columns))
    if said is None:
        raise HTTPException(404, "The item was deleted.")
    return answer(_said(service.model, said))


@router.delete("/items/{item_id:path}")
async def delete_item(item_id: Id, request: Request) -> Response:
    """Offer an item no more."""
    service: Service = request.app.state.service
    if service.model.items.place(item_id) is None:
        raise HTTPException(404, "There is no item of that id.")
    await service.write(DeleteItem(item_id))
    return answer({"deleted": item_id})


async def _check(service: Service, item_id: str, columns: dict[str, Any]) -> None:
    """Refuse columns that the model can not read, and read the text, so that the item is taken without waiting for it.

    Raises:
        Conflict: names the column.
    """
    model = service.model
    try:
        model.engine.check_item(NewItem(item_id, columns))
    except InputError as error:
        raise Conflict(str(error).removeprefix(f"item {item_id}: ")) from error
    await service.meaning(model.text_of(columns))


def _line(model: LiveModel, dense: int) -> dict[str, Any]:
    return {"item_id": model.items.ids[dense], "title": model.items.title(dense), "columns": model.items.of(dense)}


def _said(model: LiveModel, item: Item) -> dict[str, Any]:
    dense = model.items.place(item.item_id)
    known = {} if dense is None else model.items.of(dense)
    return {"item_id": item.item_id, "columns": known, "version": item.version, "text": dense is not None and model.has_text(dense)}
