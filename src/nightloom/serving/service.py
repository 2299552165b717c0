"""What the service does, without HTTP: one worker's store and champion, and the answers made of them."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nightloom.core.queries import Query
from nightloom.serving.api.models import RecommendRequest
from nightloom.serving.asked import check, fallback_of, who_of
from nightloom.serving.business_rules import AnyRule
from nightloom.serving.live import LiveModel
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.ranker import Answer, Others
from nightloom.serving.model.variety import variety
from nightloom.serving.new_place import NEW_AT, with_new
from nightloom.serving.reasons.explain import chosen_by_hand, explaining
from nightloom.serving.reasons.reason_words import Language
from nightloom.serving.refusals import Conflict
from nightloom.serving.rule_effects import Applied
from nightloom.serving.score_drift import ScoreDrift
from nightloom.serving.search.in_words import InWords
from nightloom.serving.store import Ack, Store
from nightloom.serving.store.writes import Write
from nightloom.serving.tokens import Shown, Signer

Result = TypeVar("Result")
Mask = NDArray[np.bool_]
FloatArray = NDArray[np.float32]
MOST_SHOWN = 2_000
"""Items over all pages of one recommendation."""
Why = Callable[[], Sequence[dict[str, Any]]]


@dataclass
class Service:
    """One worker's parts. Its event loop alone calls it.

    Attributes:
        store: where writes go.
        signer: makes tokens.
        live: the champion; None until one is opened.
        drift: compares its scores with those of its training.
        problem: why the last version that was to serve does not.
        rules: business rules that hold for every request.
        rules_problem: why the file of rules, as it is now, is not in force.
        reasoning: one answer at a time is given its reasons, in a thread of its own.
    """

    store: Store
    signer: Signer
    live: LiveModel | None = None
    drift: ScoreDrift | None = None
    problem: str | None = None
    rules: Sequence[AnyRule] = ()
    rules_problem: str | None = None
    reasoning: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    @property
    def model(self) -> LiveModel:
        """The champion, which has learned from all that is committed."""
        if self.live is None:
            raise RuntimeError("no model is open yet: the application opens one before it answers")
        self.live.catch_up()
        return self.live

    async def write(self, what: Write[Result], ack: Ack = "local") -> Result:
        """Write, and give the result when it is durable and this worker has learned from it.

        Args:
            what: to write.
            ack: `central` waits until PostgreSQL has it, too.

        Raises:
            Conflict: there is no PostgreSQL to wait for.
        """
        if ack == "central" and not self.store.shared:
            raise Conflict("ack: there is no PostgreSQL behind this service. Write local, or start it with NIGHTLOOM_EVENTS_URL.")
        done = await asyncio.wrap_future(self.store.submit(what, ack))
        if self.live is not None:
            self.live.catch_up()
        return done

    async def meaning(self, text: str | None) -> FloatArray | None:
        """The vector of a text, made in a thread; None without one, and where the service reads no texts."""
        if text is None or (model := self.model).encoder is None:
            return None
        return await asyncio.to_thread(model.meaning, text)

    async def answer(self, asked: RecommendRequest, language: Language = "en") -> dict[str, Any]:
        """The answer to a request; what takes longer is done in threads, while others are answered. As `recommend` besides."""
        answer, why = self.recommend(asked, await self.meaning(asked.query), language)
        if why is not None:
            async with self.reasoning:
                told = await asyncio.to_thread(why)
            answer["items"] = [{**line, "reason": reason} for line, reason in zip(answer["items"], told, strict=True)]
        return answer

    def recommend(
        self, asked: RecommendRequest, meaning: FloatArray | None = None, language: Language = "en"
    ) -> tuple[dict[str, Any], Why | None]:
        """The answer to a request but for the reasons, and what finds these, in any thread; None where none are asked for.

        Args:
            asked: the request.
            meaning: what `meaning` gave for its query.
            language: of reasons, unless the request names one.

        Raises:
            Conflict: fields contradict each other, or name an event or a column that there is not.
            Forged: the page is none of ours.
        """
        model = self.model
        if asked.user_id is not None and model.pseudonyms is not None:
            asked = asked.model_copy(update={"user_id": model.key_of(asked.user_id)})
        engine, items = model.engine, model.items
        check(asked, model.rules.knows)
        steps = {"catalogue": len(items)}
        before = self._page(asked)
        open_on_any_page, allowed, candidates = self._allowed(model, asked, before, steps)
        exclude_seen = asked.exclude_seen
        if exclude_seen is None:  # a given list is ranked whole
            exclude_seen = model.champion.exclude_seen and asked.items is None
        moment = time.time_ns() // 1_000_000
        rules = None
        if self.rules or asked.rules:
            rules = Applied(self.rules, asked.rules, items, moment if asked.now is None else asked.now * 1000)
        who = who_of(asked)
        fallback, drawn = fallback_of(engine, who), None
        if fallback is not None and asked.user_id is not None and candidates is None and asked.query is None:
            drawn = variety(engine, asked.user_id, moment // 1000 if asked.now is None else asked.now, asked.now, open_on_any_page)

        def liked(many: int, among: NDArray[np.int64] | None, lift: FloatArray | None = None, also: Others | None = None) -> Answer:
            limits: dict[str, Any] = {"exclude_seen": exclude_seen, "allowed": allowed, "candidates": among, "also": also}
            limits["lift"] = drawn if lift is None else lift if drawn is None else lift + drawn
            if isinstance(who, str):
                dense, scores = engine.recommend_user(who, many, now=asked.now, **limits)
            else:
                dense, scores = engine.recommend(who, many, **limits)
            return dense, scores if drawn is None else scores - drawn[dense]

        def rank(many: int, lift: FloatArray | None = None) -> Answer:
            return liked(many, candidates, lift) if words is None else words.rank(many, lift)

        words: InWords | None = None
        if asked.query is not None:
            open_to = _open_to(engine, allowed, candidates)
            named = items.place(asked.query.strip())
            words = InWords(model.search, asked.query, meaning, named, open_to, lambda pool: liked(len(pool), pool))
        pinned: dict[int, str] = {}
        fresh: int | None = None
        if rules:
            found, scores, pinned = rules.rank(rank, asked.k, before)
        elif fallback is None and candidates is None and words is None:
            found, scores, fresh = with_new(engine, who, lambda many, also: liked(many, None, also=also), asked.k, before, items.marks)
            if self.drift is not None and asked.filter is None and not before and scores:
                self.drift.count(scores[0], exclude_seen=exclude_seen)
        else:
            found, scores = (one.tolist() for one in rank(asked.k))
        if words is not None:
            steps["search"] = words.pooled
        steps["answered"] = len(found)
        shown = items.marks[found].tolist()
        said = Shown(secrets.token_hex(8), model.champion.version, moment, asked.user_id, [*before, *shown], len(before))
        token = self.signer.sign(said)
        answer: dict[str, Any] = {
            "items": _lines(model, found, scores, asked, pinned, words, fresh),
            "token": token,
            "next": token if len(found) == asked.k and len(said.items) + asked.k <= MOST_SHOWN else None,
            "version": model.champion.version,
            "fallback": fallback,
            "filled": len(found) == asked.k,
        }
        why: Why | None = None
        if asked.explain:
            ruled = bool(rules) or words is not None or drawn is not None
            by_score = 0 if ruled else len(found) if fresh is None else NEW_AT - 1 - len(before)
            more: dict[str, Any] = {"before": len(before), "language": asked.language or language, "by_score": by_score}
            more |= {"exclude_seen": exclude_seen, "allowed": allowed, "candidates": candidates}
            why = self._reasons(model, asked, who, found, pinned, **more)
        if asked.debug:
            done = rules.explained(found, rank(asked.k)[0].tolist()) if rules else []
            answer["debug"] = steps | {"exclude_seen": exclude_seen, "reranked": engine.reranked, "rules": done}
        if words is not None:
            answer["meaning"] = meaning is not None
        return answer, why

    @staticmethod
    def _reasons(
        model: LiveModel, asked: RecommendRequest, who: Query | str, found: Sequence[int], pinned: Container[int], **said: Any
    ) -> Why:
        """What finds why each item is in the answer."""
        explained = explaining(model, who, np.array(found, dtype=np.int64), now=asked.now, both_signs=asked.explain == "both", **said)

        def why() -> list[dict[str, Any]]:
            told = zip(found, explained(), strict=True)
            return [chosen_by_hand(said["language"], one["rank"]) if place in pinned else one for place, one in told]

        return why

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
    ) -> tuple[Mask | None, Mask | None, NDArray[np.int64] | None]:
        """What may be recommended on any page and on this one, and the items that are ranked alone; `steps` is told how many are left."""
        items, candidates = model.items, None
        allowed: Mask | None = None
        if asked.filter is not None:
            allowed = asked.filter.mask(items)
            steps["filter"] = int(np.count_nonzero(allowed))
        on_any_page = allowed
        if before:
            fresh = ~np.isin(items.marks, np.array(before, dtype=np.uint32))
            allowed = fresh if allowed is None else allowed & fresh
            steps["page"] = int(np.count_nonzero(allowed))
        if asked.items is not None:
            places = {place for item in asked.items if (place := items.place(item)) is not None}
            candidates = np.array(sorted(places), dtype=np.int64)
            steps["items"] = len(candidates)
        return on_any_page, allowed, candidates

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


def _open_to(engine: Engine, allowed: Mask | None, candidates: NDArray[np.int64] | None) -> Mask:
    """Items that may be recommended, bool [items]."""
    found = engine.catalogue.open_to(allowed)
    if candidates is None:
        return found
    only = np.zeros_like(found)
    only[candidates] = found[candidates]
    return only


def _lines(
    model: LiveModel,
    found: Sequence[int],
    scores: Sequence[float],
    asked: RecommendRequest,
    pinned: Mapping[int, str],
    words: InWords | None,
    fresh: int | None,
) -> list[dict[str, Any]]:
    """What is said of the items of an answer."""
    items, engine = model.items, model.engine
    lines: list[dict[str, Any]] = [{"item_id": items.ids[place], "score": score} for place, score in zip(found, scores, strict=True)]
    if engine.labelled:
        who, dense = who_of(asked), np.array(found, dtype=np.int64)
        if isinstance(who, str):
            labels = engine.label_probabilities_of_user(who, dense, now=asked.now)
        else:
            labels = engine.label_probabilities(who, dense)
        for line, label in zip(lines, labels.tolist(), strict=True):
            line["label_probability"] = label
    titles, reranked, penalty = None if items.title_column is None else items.titles, engine.reranked, engine.penalty
    for place, line in zip(found, lines, strict=True):
        if titles is not None:
            line["title"] = titles[place]
        if reranked:
            odds = line["score"] if words is None else words.liking(place)
            if penalty is not None:  # it orders lists, and says nothing of how probable an item is
                odds += float(penalty.values[place])
            line["probability"] = 1 / (1 + math.exp(-odds))
        if words is not None:
            line["match"] = words.match(place)
        if place in pinned:
            line["pinned"] = pinned[place]
        if place == fresh:
            line["new"] = True
        if asked.columns:
            known = items.of(place)
            line["columns"] = {name: known[name] for name in asked.columns if name in known}
    return lines
