"""The service as an ASGI app: one worker's store, champion, routes, and the tasks that keep them up to date.

Imports neither torch nor pandas nor MLflow: the process that starts the workers finds the champion (`nightloom.serving.run`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

from nightloom import __version__
from nightloom.core.errors import InputError, NightloomError
from nightloom.serving.api import bulk, events, items, problems, recommend, storefront, system, users
from nightloom.serving.api.admission import Admission
from nightloom.serving.api.direct import Direct
from nightloom.serving.api.guard import Guard
from nightloom.serving.api.keys import Keys
from nightloom.serving.api.metrics import Metrics
from nightloom.serving.api.pace import Pace
from nightloom.serving.business_rules import RuleBook
from nightloom.serving.live import LiveModel
from nightloom.serving.pauses import Pauses
from nightloom.serving.score_drift import ScoreDrift
from nightloom.serving.service import Service
from nightloom.serving.settings import CHAMPION, LIMITS, PREPARED, Champion, Limits, Settings
from nightloom.serving.store import Store
from nightloom.serving.tokens import Signer

FAULTS = (NightloomError, OSError, ValueError, sqlite3.Error)
"""What reading a champion, or a store, may end with; a worker serves on."""
LOOK_SECONDS = 0.25
"""How often a worker looks what others wrote, and which version is to serve, when nobody asks."""
CHAMPION_SECONDS = 0.02
"""How often a worker that starts looks whether the parent process has asked the registry."""
LEAVE_SECONDS = 1.0
WARM_SECONDS = 5.0
"""How long another version may make itself ready for the users of the one that serves; others wait for it when they ask."""
log = logging.getLogger("nightloom.serving")


def create_app(settings: Settings, keys: Keys | None = None) -> Guard:
    """The app of one worker.

    Args:
        settings: see there.
        keys: who may do what; None: as the environment says.
    """
    metrics = Metrics()
    app = FastAPI(
        title="Nightloom",
        version=__version__,
        summary="Recommendations that have learned from the last second.",
        lifespan=_lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        default_response_class=Response,
        responses=problems.DESCRIBED,
    )
    app.state.settings, app.state.metrics, app.state.folder = settings, metrics, settings.folder
    problems.install(app)
    for one in (recommend, bulk, events, items, users, system, storefront):
        app.include_router(one.router)
    admission = Admission(metrics, settings.at_once, settings.connections)
    app.state.pace = admission.pace
    return Guard(Direct(app), Keys.of_environment() if keys is None else keys, metrics, admission)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    store = Store.open(settings.store, settings.url)
    service = Service(store, Signer.of(settings.store.with_suffix(".secret")))
    app.state.service = service
    app.state.gauges = lambda: _gauges(service)
    tasks: list[asyncio.Task[None]] = []
    book = None if settings.rules is None else RuleBook(settings.rules)
    try:
        _read_rules(service, book)
        service.live = live = await _first_model(settings, store)
        service.drift = ScoreDrift(live)
        log.info("serves version %s of %s, %d items", live.champion.version, live.champion.name, len(live.items))
        tasks = [asyncio.create_task(_watch(service, settings, book, app.state.pace)), asyncio.create_task(_leave(app))]
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(store.close)  # what was taken is written before the process ends
        if service.live is not None:
            service.live.close()
        app.state.metrics.leave(settings.folder, app.state.metrics.state(_gauges(service)))


async def _first_model(settings: Settings, store: Store) -> LiveModel:
    """What is to serve. While the registry is still asked, what promotion has prepared is opened meanwhile."""
    folder, blocklist = settings.folder, settings.blocklist
    likely: LiveModel | None = None
    if not (folder / CHAMPION).exists():
        with contextlib.suppress(NightloomError, OSError, ValueError):  # it is opened below, which says what is wrong
            likely = await asyncio.to_thread(lambda: open_model(Champion.read(folder / PREPARED), store, blocklist, settings.limits))
    while not (folder / CHAMPION).exists():
        await asyncio.sleep(CHAMPION_SECONDS)
    said = Champion.read(folder / CHAMPION)
    if likely is not None:
        if likely.champion == said:
            return likely
        likely.close()
    return await asyncio.to_thread(open_model, said, store, blocklist, settings.limits)


def open_model(champion: Champion, store: Store, blocklist: Path | None = None, limits: Limits = LIMITS) -> LiveModel:
    """A champion that has learned from all that is stored so far.

    Raises:
        NightloomError: it does not load, or does not answer as its bundle did.
    """
    live = LiveModel(champion, store, blocklist, limits=limits)
    live.catch_up()
    return live


def _open_beside(former: LiveModel, champion: Champion, store: Store, blocklist: Path | None, limits: Limits) -> LiveModel:
    """Another champion, opened while one answers, and made ready for the users that it was asked about."""
    live = LiveModel(champion, store, blocklist, Pauses(), limits)
    live.catch_up()
    live.warm(former.engine.cached_users(), WARM_SECONDS)
    live.catch_up()
    live.opened()
    return live


def _read_rules(service: Service, book: RuleBook | None) -> None:
    """Read the business rules where their file has changed; a broken one leaves those in force that were."""
    try:
        if book is not None and (rules := book.changed()) is not None:
            service.rules, service.rules_problem = rules, None
            log.info("%d business rules of %s are in force", len(rules), book.path)
    except InputError as error:
        service.rules_problem = "the file of business rules is broken, and those before it stay in force; the log says why"
        log.error("business rules: %s", error)


async def _watch(service: Service, settings: Settings, book: RuleBook | None, pace: Pace) -> None:
    """Learn from what other workers and machines wrote, and change over when another version, or other rules, are to serve."""
    refused: str | None = None
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        _read_rules(service, book)
        try:
            if service.drift is not None and not pace.crowded:
                service.drift.tick()
        except FAULTS as error:
            service.drift = None
            log.error("scores are no more compared with those of the champion's training: %s", error)
        try:
            if (path := service.model.rebuilt(settings.folder)) is not None:
                await asyncio.to_thread(service.model.renew, path)
                log.info("edges that were built anew are in force")
        except FAULTS as error:
            log.error("the edges of before go on: %s", error)
        try:
            said = Champion.read(settings.folder / CHAMPION)
            former = service.model
            if said.version == former.champion.version:
                service.problem = refused = None
            if said.version in (former.champion.version, refused):
                continue
            refused = said.version  # not tried again, unless another one came in between
            with pace.patient():
                fresh = await asyncio.to_thread(_open_beside, former, said, service.store, settings.blocklist, settings.limits)
            fresh.catch_up()
            service.live, service.drift, service.problem, refused = fresh, ScoreDrift(fresh), None, None
            former.close()
            log.info("changed over from version %s to version %s", former.champion.version, said.version)
        except FAULTS as error:
            service.problem = "the version that is to serve can not be opened; the log says why"
            log.error("another version can not be opened, the old one serves on: %s", error)


async def _leave(app: FastAPI) -> None:
    """Leave the counters where the other workers read them."""
    while True:
        writing = asyncio.create_task(
            asyncio.to_thread(app.state.metrics.leave, app.state.folder, app.state.metrics.state(app.state.gauges()))
        )
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing  # else it might be written over what is left at the end
            raise
        await asyncio.sleep(LEAVE_SECONDS)


def _gauges(service: Service) -> dict[str, float]:
    found: dict[str, float] = {"store_queue_rows": service.store.waiting, "time_seconds": time.time()}
    with contextlib.suppress(Exception):  # the store is closed, or its disk is gone
        found["store_spool_rows"] = service.store.spool
    if service.live is not None:
        engine = service.live.engine
        found |= {
            "model_version": float(service.live.champion.version),
            "catalogue_items": len(service.live.items),
            "cached_users": len(engine.users),
            "cached_users_bytes": engine.users.nbytes,
            "changes_learned": service.live.learned,
            "learned_at_seconds": service.live.learned_at,
            "trained_until_seconds": float(engine.clock.latest or 0),
            "version_refused": float(service.problem is not None),
            "business_rules": float(len(service.rules)),
            "business_rules_refused": float(service.rules_problem is not None),
            "awaited_events": float(len(service.live.awaited)),
        }
    if service.drift is not None:
        found |= service.drift.gauges()
    return found
