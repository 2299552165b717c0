"""A champion in service: its engine, the store on top of the snapshot that it was trained on, and what is known of its items."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.blocklist import Blocklist
from nightloom.core.errors import InputError, NightloomError
from nightloom.core.item_text import compose
from nightloom.core.privacy_key import MARK
from nightloom.core.pseudonyms import pseudonyms_of
from nightloom.core.queries import Query
from nightloom.encoders.shared import SharedEncoder, shared
from nightloom.packaging.serving_format import TEXTS
from nightloom.serving.items.known_items import KnownItems
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.model.artefact import Artefact
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.warm import check
from nightloom.serving.pauses import without_pause
from nightloom.serving.rebuild import Rebuilt
from nightloom.serving.search.search import Search
from nightloom.serving.search.word_index import WordIndex
from nightloom.serving.settings import LIMITS, Champion, Limits, rebuilt_file
from nightloom.serving.store import Change, DeletedEvent, Event, Forgotten, Item, Store
from nightloom.serving.stored import Rules
from nightloom.serving.withheld import Awaited, Robots

FloatArray = NDArray[np.float32]
LONGEST_HISTORY = 100_000
"""Events of a user that are read; nobody has more."""
log = logging.getLogger("nightloom.serving")


class LiveModel:
    """Answers from memory, and learns from what the store tells. One thread calls it at a time.

    Args:
        champion: what to open.
        store: where the day's rows are.
        blocklist: file that says what is never shown; it is read again when it changes. None: nothing is blocked.
        pause: called between small steps of work, until the model serves (`opened`).
        limits: of the engine.

    Raises:
        InputError: the artefact is damaged, or the snapshot is none, or the blocklist.
        NightloomError: the engine does not answer as the bundle that the artefact was made of.
    """

    def __init__(
        self,
        champion: Champion,
        store: Store,
        blocklist: Path | None = None,
        pause: Callable[[], None] = without_pause,
        limits: Limits = LIMITS,
    ) -> None:
        self.champion, self._pause = champion, pause
        self.engine = Engine(Artefact.open(champion.folder), self._stored, limits.cache_bytes, large=limits.large)
        check(self.engine)
        artefact = self.engine.artefact
        self._kinds, self._separator = artefact.manifest.features["kinds"], artefact.manifest.features["tags_separator"]
        self.items = KnownItems(artefact.catalogue, self._kinds, self._separator)
        texts = artefact.arrays(TEXTS) if TEXTS in artefact.manifest.files else None
        self.encoder = None if champion.text_encoder is None or texts is None else _opened(champion.text_encoder)
        words = WordIndex(self._kinds, self._separator, self.items.title_column)
        for dense in range(len(self.items)):
            words.put(dense, self.items.of(dense))
            pause()
        self.search = Search(words, texts)
        self.view = store.view(champion.snapshot)
        self.pseudonyms = pseudonyms_of(champion.snapshot)
        clock = self.engine.clock
        self.rules = Rules(self.engine.artefact.manifest.meta, clock.has_time)
        self.awaited = Awaited()
        """Events that wait for their items."""
        self._robots = Robots(self.rules.busiest_day, self._told)
        self._through = self.view.cursor
        self._blocklist_path = blocklist
        self._blocklist, self._blocklist_seen = Blocklist(), self._stamp()
        if blocklist is not None:
            self._block_by(Blocklist.read(blocklist))
        self._rebuilt_seen: int | None = None
        self.learned, self.learned_at = 0, 0.0
        """Changes that were applied since it was opened, and when the last one was (seconds since 1970)."""

    def catch_up(self) -> int:
        """Apply what was committed since the last call, by whatever process; how many rows that were. Some 5 us where nothing was."""
        many = 0
        self._look_at_blocklist()
        try:
            for change in self.view.changes():
                many += 1
                self._through = self.view.cursor - 1
                self._apply(change)
                self._pause()
        finally:
            if many:
                self._through = self.view.cursor
                self.learned, self.learned_at = self.learned + many, time.time()
        return many

    def warm(self, users: Iterable[str], seconds: float) -> None:
        """Make ready for users, those first who are likeliest to ask, as long as there is time and room."""
        ends = time.monotonic() + seconds
        for user in users:
            if time.monotonic() > ends or not self.engine.warm_user(user):
                break
            self._pause()

    def opened(self) -> None:
        """From now on it serves, and pauses no more."""
        self._pause = without_pause

    def key_of(self, user_id: str) -> str:
        """The key under which a person is stored: the id, or its pseudonym where the champion's snapshot holds those."""
        return user_id if self.pseudonyms is None else self.pseudonyms(user_id)

    def history(self, user: str) -> list[Event]:
        """A user's events, oldest first, as far as they were applied; those that wait for their items are not among them."""
        told = self._told(user)
        return [event for event in told if event.event_id not in self.awaited] if self.awaited else told

    def trained_on(self, user: str) -> Query:
        """A user's history as the champion was trained on it."""
        return self.rules.query(user, self.view.trained_on(user))

    def _look_at_blocklist(self) -> None:
        """Follow the blocklist's file. One that can not be read changes nothing: what was blocked stays blocked."""
        stamp = self._stamp()
        if stamp == self._blocklist_seen or self._blocklist_path is None:
            return
        self._blocklist_seen = stamp
        try:
            self._block_by(Blocklist.read(self._blocklist_path))
        except InputError as error:
            log.error("the blocklist of before goes on: %s", error)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            at = os.stat(self._blocklist_path) if self._blocklist_path is not None else None
        except OSError:
            return None
        return None if at is None else (at.st_mtime_ns, at.st_size, at.st_ino)

    def _block_by(self, blocklist: Blocklist) -> None:
        self._blocklist = blocklist
        for dense in range(len(self.items)):
            self._block(dense)
        log.info("%d of %d items are blocked", len(self.items.blocked), len(self.items))

    def _block(self, dense: int) -> None:
        """See whether an item is blocked as it is known now."""
        blocked = bool(self._blocklist) and self._blocklist.reason(self.items.ids[dense], self.items.of(dense), self._separator) is not None
        (self.items.blocked.add if blocked else self.items.blocked.discard)(dense)
        self.engine.block_item(dense, blocked=blocked)

    def meaning(self, text: str | None) -> FloatArray | None:
        """The vector of a text; None without one, and where the service reads no texts. A new text takes milliseconds, in any thread."""
        if text is None or self.encoder is None:
            return None
        try:
            return self.encoder.vector(text)
        except NightloomError as error:
            log.error("a text is not read: %s", error)
            return None

    def text_of(self, columns: Mapping[str, Any]) -> str | None:
        """An item's text, as the night composes it."""
        return compose(columns, self._kinds, self._separator)

    def has_text(self, dense: int) -> bool:
        """Whether an item's text counts in the answers."""
        if self.encoder is None:
            return dense < self.engine.catalogue.trained and self.engine.text_dim > 0
        return self.search.has_text(dense)

    def rebuilt(self, folder: Path) -> Path | None:
        """The file of edges that were built anew for this version and were not taken yet, once."""
        path = rebuilt_file(folder, self.champion.version)
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            return None
        seen, self._rebuilt_seen = self._rebuilt_seen, stamp
        return None if stamp == seen else path

    def renew(self, path: Path) -> None:
        """Take edges that were built anew; answers go on meanwhile.

        Raises:
            OSError, ValueError: the file is damaged.
            InputError: it is of another catalogue.
        """
        found = Rebuilt.read(path)
        for scorer, arrays in found.arrays.items():
            self.engine.renew(scorer, arrays, found.fresh)

    def close(self) -> None:
        """Close the store's reader, and let go of the users, the most of its memory, at once."""
        self.view.close()
        self.engine.forget_users()

    def _told(self, user: str) -> list[Event]:
        return self.view.history(user, LONGEST_HISTORY, self._through)

    def _stored(self, user: str) -> Query:
        return self.rules.query(user, self.history(user))

    def _apply(self, change: Change) -> None:
        if isinstance(change, Event):
            self._add(change)
        elif isinstance(change, DeletedEvent):
            self._delete(change.event)
        elif isinstance(change, Item):
            self._put(change)
        elif isinstance(change, Forgotten):
            if change.user_id.startswith(MARK):  # whose it is nobody can tell any more
                self.engine.forget_users()
            else:
                self._forget(change.user_id)

    def _add(self, event: Event) -> None:
        if event.user_id in self._robots:
            return
        if self._robots.tell(event):  # nothing of theirs counts, by the night's rule
            before = self.history(event.user_id)
            self._differ(before, [*before, event])
            log.info("a user is taken for a robot: more than %s events on one day", self._robots.limit)
        elif self.rules.counts(event):
            if event.item_id in self.engine.item_index:
                self._place(event)
            else:
                self.awaited.add(event)

    def _place(self, event: Event) -> None:
        """Learn from an event; where its user did something with the item before, by the rules for repeats."""
        dense, user = self.engine.item_index[event.item_id], self.engine.users.get(event.user_id)
        earlier = np.flatnonzero(user.items == dense)
        if len(earlier) and not self._is_latest(event, user.times[earlier]):
            before = self.history(event.user_id)
            self._differ(before, sorted([*before, event], key=lambda one: one.timestamp))
        elif self.rules.adds(event, user.positive[earlier].tolist()):
            self._learn(event)

    def _is_latest(self, event: Event, times: NDArray[np.int64]) -> bool:
        """Whether an event is surely later than others, whose times are in seconds."""
        return self.rules.has_times and event.timestamp // 1000 > int(times.max())

    def _delete(self, event: Event) -> None:
        self.engine.users.get(event.user_id)  # as it was: the row is not gone up to here
        before = self.history(event.user_id)
        after = [one for one in before if one.event_id != event.event_id]
        self._differ(before, after)
        self.awaited.discard(event.event_id)
        self._robots.forget(event.user_id)

    def _forget(self, user: str) -> None:
        self.engine.forget_user(user)
        self._robots.forget(user)
        for event in self.awaited.of_user(user):
            self.awaited.discard(event.event_id)

    def _differ(self, before: list[Event], after: list[Event]) -> None:
        """Take back what no longer counts of a user, and learn what does now: a repeat may count where the first is gone."""
        old, new = ({_key(event): event for event in self.rules.kept(events)} for events in (before, after))
        for key, event in old.items():
            if key not in new:
                self.engine.retract(event.user_id, event.item_id, self.rules.code(event.event), event.timestamp // 1000)
        for key, event in new.items():
            if key not in old:
                self._learn(event)

    def _learn(self, event: Event) -> None:
        code, positive = self.rules.code(event.event), self.rules.positive(event)
        self.engine.apply(event.user_id, event.item_id, code, event.timestamp // 1000, positive=positive)

    def _put(self, item: Item) -> None:
        if item.deleted:
            self.engine.remove_item(item.item_id)
            self.items.remove(item.item_id)
            return
        columns, known = self.items.merged(item), self.engine.item_index.get(item.item_id)
        before = None if known is None else self.items.of(known)
        text = self.text_of(columns)
        same = before is not None and known is not None and known < self.engine.catalogue.trained and self.text_of(before) == text
        vector = None if same else self.meaning(text)
        with contextlib.suppress(InputError):  # another machine, of another champion, took what this one can not read
            dense = self.engine.put_item(NewItem(item.item_id, columns, vector if self.engine.text_dim else None))
            self.items.put(dense, item.item_id, columns)
            self._block(dense)
            self.search.words.put(dense, columns, before)
            if not same:
                self.search.put(dense, vector)
            for event in self.awaited.of(item.item_id):
                if event.user_id not in self._robots:
                    self._place(event)
                self.awaited.discard(event.event_id)


def _opened(folder: Path) -> SharedEncoder | None:
    """The text encoder, or none where it can not be read: the service then does without."""
    try:
        return shared(folder)
    except NightloomError as error:
        log.warning("the service reads no texts: %s", error)
        return None


def _key(event: Event) -> tuple[str, str, int]:
    return event.item_id, event.event, event.timestamp
