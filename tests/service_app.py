"""A service's workers in this process, over a bundle with random weights and a snapshot of its users' events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pandas as pd

from nightloom.compress.text import text_export
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.api.keys import Keys
from nightloom.serving.app import create_app
from nightloom.serving.service import Service
from nightloom.serving.settings import CHAMPION, Champion, Settings
from tests.serving_bundle import DAY, EVENTS, N_ITEMS, START, UNKNOWN_ITEMS, serving_bundle

USERS = 20


def make_snapshot(folder: Path) -> Path:
    """A snapshot with events of users u0 to u19, some of them the same twice."""
    random, many = np.random.default_rng(0), 400
    folder.mkdir(parents=True)
    seconds = START - np.sort(random.integers(0, 50 * DAY, many))[::-1]
    frame = pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in random.integers(0, USERS, many)],
            "item_id": [f"i{item}" for item in random.integers(0, N_ITEMS - UNKNOWN_ITEMS, many)],
            "timestamp": pd.to_datetime(seconds, unit="s", utc=True).as_unit("ms"),
            "event": random.choice(EVENTS, many),
        }
    )
    pd.concat([frame, frame.tail(20)]).to_parquet(folder / "events.parquet", index=False)
    (folder / "snapshot.json").write_text(json.dumps({"hash": "d" * 64}))
    return folder


def make_served(folder: Path, **said: Any) -> Path:
    """A bundle, its artefact and a snapshot, in `bundle`, `serving` and `snapshot` of a folder; gives the folder back.

    With `encoder` there is also the exported text encoder, in `encoder`.
    """
    serving_bundle(folder / "bundle", **said)
    make_snapshot(folder / "snapshot")
    found = text_export(Bundle.load(folder / "bundle"), folder / "exports")
    write_serving(folder / "bundle", folder / "serving", found and found[0].said())
    if found is not None:
        found[1].rename(folder / "encoder")
    return folder


def name_champion(home: Path, made: Path, version: str = "1") -> None:
    """Say what is to serve, as the parent process does."""
    encoder = made / "encoder"
    Champion("shop", version, made / "serving", made / "snapshot", text_encoder=encoder if encoder.is_dir() else None).write(
        home / CHAMPION
    )


class Worker:
    """A worker whose lifespan lasts as long as the block.

    Args:
        home: the service's folder, with the store.
        keys: key -> role.
        said: more settings.
    """

    def __init__(self, home: Path, keys: dict[str, str] | None = None, **said: Any) -> None:
        self.guard = create_app(Settings(home, home / "shop.db", **said), Keys(keys or {}))
        self.app: Any = self.guard.app.app
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._life = self.app.router.lifespan_context(self.app)
        self._runner.run(self._life.__aenter__())
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(self.guard), base_url="http://service")
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._life.__aexit__(None, None, None))
        self._runner.close()

    @property
    def service(self) -> Service:
        """Its parts."""
        found: Service = self.app.state.service
        return found

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """A request, with JSON where a body is given."""
        return self._runner.run(self._client.request(method, path, **({} if body is None else {"json": body}), **more))

    def rest(self, seconds: float) -> None:
        """Let the worker's own tasks run."""
        self._runner.run(asyncio.sleep(seconds))

    def ask(self, **said: Any) -> dict[str, Any]:
        """The answer of /recommend."""
        found = self("POST", "/recommend", said)
        assert found.status_code == 200, found.text
        return dict(found.json())

    def tell(self, *events: dict[str, Any]) -> dict[str, Any]:
        """Store events."""
        found = self("POST", "/events", {"events": list(events)})
        assert found.status_code == 200, found.text
        return dict(found.json())


def event(event_id: str, user: str, item: str, name: str = "buy", at: int = START + 10) -> dict[str, Any]:
    """An event as it is sent."""
    return {"event_id": event_id, "user_id": user, "item_id": item, "event": name, "timestamp": at}


def ids(answer: dict[str, Any]) -> list[str]:
    """Item ids of an answer."""
    return [item["item_id"] for item in answer["items"]]
