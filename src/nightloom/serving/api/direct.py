"""Recommendations past the framework: its layers cost as much of the processor as the answer itself.

What is asked most, a good `POST /recommend`, is read, checked by the same model and answered here. Whatever fails is asked again of the
framework, from the beginning: it alone says what is wrong.
"""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

from fastapi import FastAPI
from pydantic_core import to_json
from starlette.types import Message, Receive, Scope, Send

from nightloom.serving.api.models import RecommendRequest
from nightloom.serving.api.recommend import PATH, recommended

JSON = b"application/json"
ROUTE = SimpleNamespace(path=PATH)
"""What the guard reads of the route that answered."""


class Direct:
    """An ASGI app that answers recommendations, and hands all else to another.

    Args:
        app: the framework's.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        languages, kind = b"", b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                kind = value
            elif name == b"accept-language":
                languages = value
        if kind != JSON:
            await self.app(scope, receive, send)
            return
        heard = Heard(receive)
        try:
            asked = RecommendRequest.model_validate_json(await heard.body())
            content = to_json(await recommended(self.app.state, asked, languages.decode("latin-1")), inf_nan_mode="null")
        except Exception:  # the framework's answer says what it is
            await self.app(scope, heard.again, send)
            return
        scope["route"] = ROUTE
        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", JSON)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


class Heard:
    """Messages of a request, which can be heard once more.

    Args:
        receive: of the request.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self._messages = receive, deque[Message]()
        self._fault: Exception | None = None

    async def body(self) -> bytes:
        """The request's body.

        Raises:
            ConnectionError: it did not come whole.
        """
        found, more = b"", True
        while more:
            try:
                message = await self._receive()
            except Exception as error:
                self._fault = error
                raise
            self._messages.append(message)
            if message["type"] != "http.request":
                raise ConnectionError
            found += message.get("body", b"")
            more = message.get("more_body", False)
        return found

    async def again(self) -> Message:
        """The messages once more, and what comes after them."""
        if self._messages:
            return self._messages.popleft()
        if self._fault is not None:
            raise self._fault
        return await self._receive()
