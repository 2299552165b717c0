"""A client of the service, typed.

    with Client("http://127.0.0.1:8000") as service:
        answer = service.recommend("196", k=10)
        service.add_feedback("f1", answer.token, "click", time.time(), item_id=answer.items[0].item_id)

Needs httpx (the extra `serve`). A request that was told to come back is sent again; writes are harmless to repeat.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

import httpx

from nightloom.core.errors import InputError, NightloomError

PART = 1 << 16
"""Bytes of lines that are sent together."""
TRIES = 4
"""How often a request is sent that is told to come back (429, 503)."""


@dataclass(frozen=True)
class ReasonEvent:
    """An event of the history that speaks for an item, or against it.

    Attributes:
        position: 1 for the latest event.
        share: of all that speaks for the item; with `explain="both"`, of what speaks for and against it.
        named: whether the sentence names it.
        value: what it adds to the logarithm of the item's probability; None for visitors.
        error: standard error of the value; None for visitors.
    """

    item_id: str
    title: str
    position: int
    share: float
    named: bool
    value: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Reason:
    """Why an item is recommended.

    Attributes:
        text: a sentence or two.
        events: of the history, the strongest first.
        without: `items` without which it would not be in the first `top` places; None where none were found.
        rank: of the item.
        kind: of the reason, which feedback on it names.
    """

    text: str
    events: Sequence[ReasonEvent]
    without: Mapping[str, Any] | None
    rank: int
    kind: str | None = None


@dataclass(frozen=True)
class Item:
    """A recommended item.

    Attributes:
        score: of the ranking; comparable within one answer.
        title: where the catalogue has titles.
        probability: that the item is interacted with next, where the model has a re-ranker.
        label_probability: that an event on it would be positive, where the model has a label head.
        pinned: name of the business rule that put it in its place.
        new: whether it came by day, and is shown at this place since its text is near to what the person likes.
        match: of an answer in words, how the item was found: title, words (all of them) or near.
        columns: those that were asked for.
        reason: where it was asked for (`explain`).
    """

    item_id: str
    score: float
    title: str | None = None
    probability: float | None = None
    label_probability: float | None = None
    pinned: str | None = None
    new: bool = False
    match: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    reason: Reason | None = None


@dataclass(frozen=True)
class Answer:
    """A recommendation.

    Attributes:
        items: best first.
        token: what feedback refers to.
        next: what `page` of the next request is; None where there is no next page.
        version: of the model.
        fallback: why nothing is known of the one who asks; None where something is.
        filled: whether there were as many items as asked for.
        meaning: of an answer in words, whether nearness of meaning counted; without a text encoder words alone do.
    """

    items: Sequence[Item]
    token: str
    next: str | None
    version: str
    fallback: str | None
    filled: bool
    meaning: bool | None = None


def _parts(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines, many together: each part that is sent costs the service as much as reading a dozen lines."""
    part, size = list[bytes](), 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= PART:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


class Client:
    """Asks a service; one client for many requests.

    Args:
        address: such as http://127.0.0.1:8000.
        key: of the service, where it asks for one.
        timeout: seconds for a request.

    Raises:
        InputError: from every method, when the service refuses the request; names the field.
        NightloomError: from every method, when the service can not be reached or fails.
    """

    def __init__(self, address: str = "http://127.0.0.1:8000", key: str | None = None, timeout: float = 10.0) -> None:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(self, user_id: str | None = None, *, history: Sequence[str] | None = None, k: int = 10, **more: Any) -> Answer:
        """The best items for a stored user, or for a history.

        Args:
            user_id: the user.
            history: item ids, oldest first, instead.
            k: how many.
            more: further fields of the request, such as `query`, `times`, `filter`, `items`, `page`, `columns`, `rules`,
                `explain`, `language`.
        """
        who = {"user_id": user_id} if user_id is not None else {"history": list(history or ())}
        return _answer(self._send("POST", "/recommend", {**who, "k": k, **more}))

    def search(self, words: str, user_id: str | None = None, *, k: int = 10, page: str | None = None) -> Answer:
        """Items by title, by attributes, or as described in words.

        Args:
            words: what is looked for.
            user_id: whose liking counts; None: what people like in general.
            k: how many.
            page: `next` of the answer before.
        """
        asked = {"q": words, "user_id": user_id, "k": k, "page": page}
        return _answer(self._send("GET", "/search", params={name: value for name, value in asked.items() if value is not None}))

    def similar(self, items: Sequence[str], k: int = 10) -> list[Item]:
        """The items nearest to some others."""
        return [Item(**one) for one in self._send("GET", "/similar", params={"items": list(items), "k": k})["items"]]

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> int:
        """Store events, a thousand at most; how many were new."""
        return int(self._send("POST", "/events", {"events": [dict(one) for one in events]})["stored"])

    def add_many_events(self, events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Store any number of events, which are sent as they come; what became of them by counts, and the first that were refused."""
        lines = _parts(json.dumps(dict(one)).encode() + b"\n" for one in events)
        headers = {"content-type": "application/x-ndjson"}
        return self._said("POST", "/bulk/events", self._request("POST", "/bulk/events", content=lines, headers=headers, timeout=None))

    def delete_event(self, event_id: str) -> None:
        """Delete an event."""
        self._send("DELETE", f"/events/{_quoted(event_id)}")

    def add_feedback(self, feedback_id: str, token: str, kind: str, timestamp: float, **more: Any) -> None:
        """Say what became of a recommendation; `more` is `item_id`, `user_id`, `depth`, `value`, `reason`."""
        self._send("POST", "/feedback", {"feedback_id": feedback_id, "token": token, "kind": kind, "timestamp": timestamp, **more})

    def put_item(self, item_id: str, columns: Mapping[str, Any]) -> None:
        """Say all that is known of an item."""
        self._send("PUT", f"/items/{_quoted(item_id)}", dict(columns))

    def patch_item(self, item_id: str, columns: Mapping[str, Any]) -> None:
        """Change some columns of an item."""
        self._send("PATCH", f"/items/{_quoted(item_id)}", dict(columns))

    def delete_item(self, item_id: str) -> None:
        """Offer an item no more."""
        self._send("DELETE", f"/items/{_quoted(item_id)}")

    def items(self, words: str = "") -> Iterator[Mapping[str, Any]]:
        """The items that are offered, by words of their titles."""
        cursor: int | None = 0
        while cursor is not None:
            page = self._send("GET", "/items", params={"q": words, "limit": 200, "cursor": cursor})
            yield from page["items"]
            cursor = page["next"]

    def user_events(self, user_id: str) -> Iterator[Mapping[str, Any]]:
        """A user's events, the latest first."""
        cursor: str | None = None
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = self._send("GET", f"/users/{_quoted(user_id)}", params={"limit": 200, **more})
            yield from page["events"]
            if (cursor := page["next"]) is None:
                return

    def forget_user(self, user_id: str) -> None:
        """Remove all that is stored of a user."""
        self._send("DELETE", f"/users/{_quoted(user_id)}")

    def ready(self) -> bool:
        """Whether the service answers."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def _send(self, method: str, path: str, body: Any = None, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        for left in reversed(range(TRIES)):
            found = self._request(method, path, json=body, params=params)
            if found.status_code not in (429, 503) or not left:
                break
            time.sleep(float(found.headers.get("retry-after", 1)))
        return self._said(method, path, found)

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise NightloomError(f"{self._http.base_url}: the service does not answer ({error!r}).") from error

    @staticmethod
    def _said(method: str, path: str, found: httpx.Response) -> dict[str, Any]:
        if found.is_success:
            return dict(found.json())
        detail = found.json().get("detail", found.text) if "json" in found.headers.get("content-type", "") else found.text
        kind = InputError if 400 <= found.status_code < 500 and found.status_code != 429 else NightloomError
        raise kind(f"{method} {path}: {found.status_code}, {detail}")


def _answer(said: Mapping[str, Any]) -> Answer:
    names = ("token", "next", "version", "fallback", "filled", "meaning")
    return Answer([_item(one) for one in said["items"]], **{name: said[name] for name in names if name in said})


def _item(said: Mapping[str, Any]) -> Item:
    """A recommended item of an answer."""
    if (why := said.get("reason")) is None:
        return Item(**said)
    return Item(**{**said, "reason": Reason(**{**why, "events": [ReasonEvent(**one) for one in why["events"]]})})


def _quoted(name: str) -> str:
    return quote(name, safe="")
