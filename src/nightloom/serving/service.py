"""What the service does, without HTTP: one worker's store and champion, and the answers made of them."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nightloom.core.queries import Query
from nightloom.serving.api.models import RecommendRequest
from nightloom.serving.known_items import mark_of
from nightloom.serving.live import LiveModel
from nightloom.serving.refusals import Conflict
from nightloom.serving.store import Store
from nightloom.serving.store.writes import Write
from nightloom.serving.tokens import Shown, Signer

Result = TypeVar("Result")
Mask = NDArray[np.bool_]
MOST_SHOWN = 2_000
"""Items over all pages of one recommendation."""
UNKNOWN_USER, EMPTY_HISTORY, UNKNOWN_ITEMS = "unknown_user", "empty_history", "unknown_items"


@dataclass
class Service:
    """One worker's parts. Its event loop alone calls it.

    Attributes:
        store: where writes go.
        signer: makes tokens.
        live: the champion; None until one is opened.
        problem: why the last version that was to serve does not.
    """

    store: Store
    signer: Signer
    live: LiveModel | None = None
    problem: str | None = None

    @property
    def model(self) -> LiveModel:
        """The champion, which has learned from all that is committed."""
        if self.live is None:
            raise RuntimeError("no model is open yet: the application opens one before it answers")
        self.live.catch_up()
        return self.live

    async def write(self, what: Write[Result]) -> Result:
        """Write, and give the result when it is durable and this worker has learned from it."""
        done = await asyncio.wrap_future(self.store.submit(what))
        if self.live is not None:
            self.live.catch_up()
        return done

    def recommend(self, asked: RecommendRequest) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            Conflict: fields contradict each other, or name an event or a column that there is not.
            Forged: the page is none of ours.
        """
        model = self.model
        engine, items = model.engine, model.items
        _check(asked, model.rules.codes)
        steps = {"catalogue": len(items)}
        before = self._page(asked)
        allowed, candidates = self._allowed(model, asked, before, steps)
        exclude_seen = asked.exclude_seen
        if exclude_seen is None:  # a given list is ranked whole
            exclude_seen = model.champion.exclude_seen and asked.items is None
        limits: dict[str, Any] = {"exclude_seen": exclude_seen, "allowed": allowed, "candidates": candidates}
        fallback = None
        if asked.user_id is not None and asked.history is None:
            if not len(engine.users.get(asked.user_id).items):
                fallback = UNKNOWN_USER
            dense, scores = engine.recommend_user(asked.user_id, asked.k, now=asked.now, **limits)
        else:
            history = asked.history or []
            if not any(item in engine.item_index for item in history):
                fallback = UNKNOWN_ITEMS if history else EMPTY_HISTORY
            query = Query(history, asked.times, asked.events, request_time=asked.now)
            dense, scores = engine.recommend(query, asked.k, **limits)
        found = dense.tolist()
        steps["answered"] = len(found)
        shown = [mark_of(items.ids[place]) for place in found]
        moment = time.time_ns() // 1_000_000
        said = Shown(secrets.token_hex(8), model.champion.version, moment, asked.user_id, [*before, *shown], len(before))
        token = self.signer.sign(said)
        answer: dict[str, Any] = {
            "items": self._lines(model, found, scores.tolist(), asked.columns),
            "token": token,
            "next": token if len(found) == asked.k and len(said.items) + asked.k <= MOST_SHOWN else None,
            "version": model.champion.version,
            "fallback": fallback,
            "filled": len(found) == asked.k,
        }
        return answer | ({"debug": steps | {"exclude_seen": exclude_seen, "reranked": engine.reranked}} if asked.debug else {})

    def _page(self, asked: RecommendRequest) -> Sequence[int]:
        """Marks of the items that earlier pages showed."""
        if asked.page is None:
            return ()
        shown = self.signer.read(asked.page, "page")
        if shown.user != asked.user_id:
            raise Conflict("page: it belongs to an answer for somebody else. Send the request with what it began with.")
        return shown.items

    def _allowed(
        self, model: LiveModel, asked: RecommendRequest, before: Sequence[int], steps: dict[str, int]
    ) -> tuple[Mask | None, NDArray[np.int64] | None]:
        """What may be recommended, and the items that are ranked alone; `steps` is told how many are left."""
        items, candidates = model.items, None
        allowed: Mask | None = None
        if asked.filter is not None:
            allowed = asked.filter.mask(items)
            steps["filter"] = int(np.count_nonzero(allowed))
        if before:
            fresh = ~np.isin(items.marks, np.array(before, dtype=np.uint32))
            allowed = fresh if allowed is None else allowed & fresh
            steps["page"] = int(np.count_nonzero(allowed))
        if asked.items is not None:
            places = {place for item in asked.items if (place := items.place(item)) is not None}
            candidates = np.array(sorted(places), dtype=np.int64)
            steps["items"] = len(candidates)
        return allowed, candidates

    @staticmethod
    def _lines(model: LiveModel, found: Sequence[int], scores: Sequence[float], columns: Sequence[str]) -> list[dict[str, Any]]:
        items, reranked = model.items, model.engine.reranked
        lines = []
        for dense, score in zip(found, scores, strict=True):
            line: dict[str, Any] = {"item_id": items.ids[dense], "score": score}
            if items.title_column is not None:
                line["title"] = items.title(dense)
            if reranked:
                line["probability"] = 1 / (1 + math.exp(-score))
            if columns:
                known = items.of(dense)
                line["columns"] = {name: known[name] for name in columns if name in known}
            lines.append(line)
        return lines

    def similar(self, seeds: Sequence[str], k: int) -> dict[str, Any] | None:
        """Items near to others; None where none of the others is in the catalogue."""
        model = self.model
        places = [place for item in seeds if (place := model.engine.item_index.get(item)) is not None]
        if not places:
            return None
        dense, scores = model.engine.similar(places, k)
        items = model.items
        lines = [
            {"item_id": items.ids[place], "score": score, "title": items.title(place)}
            for place, score in zip(dense.tolist(), scores.tolist(), strict=True)
        ]
        return {"items": lines, "version": model.champion.version}


def _check(asked: RecommendRequest, known: Container[str]) -> None:
    """Refuse fields that contradict each other, or the model.

    Raises:
        Conflict: names the field.
    """
    history = asked.history
    for name in ("times", "events"):
        given = getattr(asked, name)
        if given is None:
            continue
        if history is None:
            raise Conflict(f"{name}: they belong to a history")
        if len(given) != len(history):
            raise Conflict(f"{name}: {len(given)} for {len(history)} events of the history")
    if asked.times is not None and asked.now is not None and asked.now < max(asked.times, default=0):
        raise Conflict("now: it is before the latest event of the history")
    if unknown := [name for name in asked.events or () if name not in known]:
        raise Conflict(f"events: the model knows no event {unknown[0]!r}")
