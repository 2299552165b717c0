"""The registry's ledger: what was meant to happen to a recommender's aliases, and what did; entries are added and never changed.

It is kept where the aliases are, as tags of the registered model, so that every machine with the same MLflow reads the same. A move
(`promote`, `rollback`) is written before the aliases are touched, with those that it leads to, and `done` after. Aliases follow the last
move: whoever comes next carries out one that a kill cut short (`Registry.settle`).

A process that was paused may touch the aliases when others have moved on, and may be killed before it sees that. So it writes `begun`
first, and until its `done` an alias that stands as its move had it, and not as the last one has it, is known to be stale (`Ledger.meant`).

A version that passed the gate is an intent too: it is registered with `INTENT_TAG`, which says over which champion. MLflow numbers versions
one after the other, so of two that were judged against the same champion the lower number goes first, on whatever machines they are.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nightloom.core.shell import typed
from nightloom.runs.processes import this_process

PREFIX = "nightloom.ledger."
INTENT_TAG = "nightloom.intent"
"""Tag of a version that passed the gate, an `Intent` as JSON; MLflow writes it with the version in one step."""
PROMOTE, ROLLBACK = "promote", "rollback"
BEGUN, DONE, ABANDONED, OVERTAKEN, HELD, RELEASED = "begun", "done", "abandoned", "overtaken", "held", "released"


@dataclass(frozen=True)
class Intent:
    """What a version was registered for.

    Attributes:
        over: number of the champion that it was judged against and shall follow; None where there was none.
        previous: number of the version that is to be `previous` then: the champion, or what stood for it where that can not be read.
        best: whether it becomes the anchor.
    """

    over: str | None
    previous: str | None
    best: bool = False

    def tag(self) -> dict[str, str]:
        """As a version's tag."""
        return {INTENT_TAG: json.dumps({"over": self.over, "previous": self.previous, "best": self.best})}

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Intent | None:
        """That of a version by its tags; None for one of before, or registered by hand."""
        return cls(**json.loads(tags[INTENT_TAG])) if INTENT_TAG in tags else None


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        key: the tag's name: entries are in its order.
        act: promote or rollback, which are moves; begun, of a process that carries one out; done or abandoned, what became of either;
            overtaken, of a version that another one was quicker than, or that a rollback swept away; held, of a night whose challenger was
            held back; released.
        at: when, UTC, ISO 8601.
        by: host, process and its start.
        version: which the entry is about.
        over: champion before a move.
        intended: of a promotion, whether it carries out the version's `Intent`; else a person wished it.
        aliases: of a move, alias -> version afterwards; None where an alias is taken away.
        of: of begun, done and abandoned, the key of the move, or of `begun` where the process did not come to its own `done`.
        night: of held, the night.
    """

    key: str
    act: str
    at: str
    by: str
    version: str | None = None
    over: str | None = None
    intended: bool = False
    aliases: Mapping[str, str | None] | None = None
    of: str | None = None
    night: str | None = None


@dataclass(frozen=True)
class Hold:
    """A stop of all promotions since a person went back a version.

    Attributes:
        back: version that was taken back.
        stands: version that serves since.
        since: when, UTC, ISO 8601.
        nights: nights held back so far.
    """

    back: str | None
    stands: str | None
    since: str
    nights: tuple[str, ...] = ()

    def said(self, name: str, most: int | None = None) -> str:
        """In words.

        Args:
            name: the config's name.
            most: nights after which it ends by itself; 0 for never, None where that is not known.
        """
        at = datetime.fromisoformat(self.since)
        ends = f", or {most} nights that it holds back" if most else ""
        back = f" from version {self.back}" if self.back else ""
        return (
            f"Promotion is held: on {at.day} {at:%B %Y, %H:%M} UTC a person went back{back} to version {self.stands}. "
            f"`{typed('nightloom', 'release', name)}` ends that{ends} ({len(self.nights)} so far)."
        )


class Ledger:
    """A recommender's ledger as it was read.

    Any process may carry out an intent, so one that was slow may write it again when others have followed already: of each intent the first
    entry counts. A rollback holds also against a promotion that had begun before it on another machine.

    Args:
        tags: those of MLflow's registered model.

    Attributes:
        entries: all of them, in order.
        moves: those that count: they were not abandoned, are the first of their intent, and promote nothing while it is held.
        overtaken: versions whose intent came to nothing.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        found = []
        for key in sorted(key for key in tags if key.startswith(PREFIX)):
            with suppress(ValueError, TypeError):  # not one of ours: a person may write any tag
                found.append(Entry(key, **json.loads(tags[key])))
        self.entries: Sequence[Entry] = found
        self.moves, self.overtaken = self._read()

    @property
    def last_move(self) -> Entry | None:
        """The move that the aliases follow."""
        return next(reversed(self.moves), None)

    @property
    def unfinished(self) -> Entry | None:
        """The last move, where it was not carried out to its end."""
        last = self.last_move
        return None if last is None or self._has(DONE, last) else last

    @property
    def begun(self) -> list[Entry]:
        """What processes began and have not ended: they go on still, are paused, or were killed."""
        ended = {one.by: one.key for one in self.entries if one.act == DONE}  # the last of each
        return [one for one in self.entries if one.act == BEGUN and ended.get(one.by, "") < one.key and not self._has(DONE, one)]

    def meant(self, aliases: Mapping[str, str]) -> dict[str, str]:
        """Aliases without what a process wrote that had slept while others moved on.

        Args:
            aliases: alias -> version, as MLflow has them.
        """
        found, last = dict(aliases), self.last_move
        moves = {one.key: one for one in self.entries}
        for began in self.begun:
            slept = moves.get(began.of or "")
            if last is None or slept is None or slept == last:
                continue
            for alias, right in (last.aliases or {}).items():
                # It takes `previous` away before it gives the champion, where both would be the same version.
                wrote = (None, (slept.aliases or {}).get(alias)) if alias == "previous" else ((slept.aliases or {}).get(alias),)
                if aliases.get(alias) != right and aliases.get(alias) in wrote:
                    found.pop(alias, None)
                    found |= {alias: right} if right is not None else {}
        return found

    @property
    def settled(self) -> set[str]:
        """Versions of which it is known what became of their intent."""
        return {one.version for one in self.entries if one.act in (PROMOTE, OVERTAKEN) and one.version}

    @property
    def taken_back(self) -> set[str]:
        """Versions that a person went back from."""
        return {one.version for one in self.entries if one.act == ROLLBACK and one.version}

    @property
    def hold(self) -> Hold | None:
        """The hold that the last rollback set, unless it has been released since."""
        for place in range(len(self.entries) - 1, -1, -1):
            one = self.entries[place]
            if one.act == RELEASED:
                return None
            if one.act == ROLLBACK and not self._has(ABANDONED, one):
                nights = dict.fromkeys(later.night or "" for later in self.entries[place:] if later.act == HELD)
                return Hold(one.version, (one.aliases or {}).get("champion"), one.at, tuple(nights))
        return None

    def next(self, act: str, **more: Any) -> tuple[Entry, str]:
        """A new entry after all that were read, and its value as a tag.

        Two that are written at once have the same number, and the rest of their key tells which is first.
        """
        number = 1 + (int(self.entries[-1].key.removeprefix(PREFIX).partition(".")[0]) if self.entries else 0)
        key = f"{PREFIX}{number:06d}.{secrets.token_hex(4)}"
        content = {"act": act, "at": datetime.now(UTC).isoformat(timespec="seconds"), "by": this_process(), **more}
        return Entry(key, **content), json.dumps(content)

    def _read(self) -> tuple[list[Entry], set[str]]:
        moves, overtaken, held, known = list[Entry](), set[str](), False, set[str]()
        for one in self.entries:
            held = (held or (one.act == ROLLBACK and not self._has(ABANDONED, one))) and one.act != RELEASED
            intent = (one.version or "") if one.intended or one.act == OVERTAKEN else None
            if intent in known or self._has(ABANDONED, one):
                continue
            if one.act == OVERTAKEN or (held and one.act == PROMOTE and one.intended):
                overtaken.add(one.version or "")
            elif one.aliases is not None and not (held and one.act == PROMOTE):
                moves.append(one)
            if intent is not None:
                known.add(intent)
        return moves, overtaken

    def _has(self, act: str, move: Entry) -> bool:
        return any(one.act == act and one.of == move.key for one in self.entries)
