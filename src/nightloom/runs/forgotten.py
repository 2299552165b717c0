"""The people who asked to be forgotten: keyed hashes of their ids, by which the next collect knows them in an unchanged source.

`<mlruns>/forgotten/<name>.json` holds a hash, a day and the versions that had seen the person for each; never an id. With a store that
machines share the list is there, too; the machines then need one key (`nightloom.core.privacy_key`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from nightloom.core.digests import read_sealed, write_sealed
from nightloom.core.privacy_key import MARK, check_fingerprint, fingerprint, forgotten_hash, forgotten_mark, hashes_in, privacy_key
from nightloom.runs.storage import Storage

FOLDER = "forgotten"
SEPARATORS = re.compile(r"[,;|\t \"'{}\[\]:=]+")
"""What stands between values in the text of a row that could not be read."""


@dataclass(frozen=True)
class Act:
    """That somebody was forgotten.

    Attributes:
        hash: of the id.
        day: of the act, UTC.
        versions: registered versions that had seen the person, as far as is known.
        done: whether all files were gone through.
    """

    hash: str
    day: str
    versions: tuple[str, ...] = ()
    done: bool = False


@dataclass(frozen=True)
class Forgotten:
    """The list of one recommender.

    Attributes:
        root: the mlruns folder.
        name: of the recommender.
        acts: oldest first.
    """

    root: Path
    name: str
    acts: tuple[Act, ...] = ()

    @classmethod
    def load(cls, root: Path, name: str) -> Self:
        """Read the list, of this machine and of the store; empty where nobody was forgotten.

        Raises:
            InputError: it was made by another key than the one here: nobody could be found by it.
            DamagedError: it is no longer what was written.
        """
        place, acts = _place(name), dict[str, Act]()
        here = read_sealed(root / place) if (root / place).is_file() else None
        for said in (here, Storage.of(root).read_json(place) if Storage.of(root).url else None):
            if said is None:
                continue
            check_fingerprint(privacy_key(root), said["key"], f"{root / place}")
            for one in said["acts"]:
                act = Act(**(one | {"versions": tuple(one["versions"])}))
                if act.hash not in acts or act.done:
                    acts[act.hash] = act
        return cls(root, name, tuple(acts.values()))

    def __len__(self) -> int:
        return len(self.acts)

    def unfinished(self) -> Self:
        """The list of those whose act was cut off."""
        return replace(self, acts=tuple(one for one in self.acts if not one.done))

    def hash(self, user: str) -> str:
        """The keyed hash of an id."""
        return forgotten_hash(privacy_key(self.root), user)

    def act(self, user: str) -> Act | None:
        """What is known of an id's act; None where there was none."""
        wanted = self.hash(user)
        return next((one for one in self.acts if one.hash == wanted), None)

    def of(self, ids: Iterable[str]) -> set[str]:
        """Those of some ids that are on the list."""
        if not self.acts:
            return set()
        hashes, key = {one.hash for one in self.acts}, privacy_key(self.root)
        return {one for one in ids if forgotten_hash(key, one) in hashes}

    def mark(self, user: str) -> str:
        """What stands for an id in the service's store once the person is forgotten."""
        return forgotten_mark(privacy_key(self.root), user)

    def with_marks(self, marks: Iterable[str]) -> Self:
        """The list with people whom another machine has forgotten, by the marks in the store that both share.

        Raises:
            InputError: another key made a mark: nobody could be found by it.
        """
        if not (said := [one for one in marks if one.startswith(MARK)]):
            return self
        found = hashes_in(said, privacy_key(self.root), "the service's store: people who were forgotten")
        known = {one.hash for one in self.acts}
        return replace(self, acts=(*self.acts, *(Act(one, "", done=True) for one in sorted(found - known))))

    def in_raw(self, raws: Sequence[str]) -> list[bool]:
        """Of rows that could not be read, whether one of the values in their text is on the list."""
        values = [values_of(raw) for raw in raws]
        found = self.of({value for one in values for value in one})
        return [not found.isdisjoint(one) for one in values]

    def noted(self, user: str, versions: Sequence[str] = (), *, done: bool = False) -> Self:
        """Write an act to the list; one that is there gets more versions, and is done when all was gone through."""
        return self.noted_by_hash(self.hash(user), versions, done=done)

    def noted_by_hash(self, hash_: str, versions: Sequence[str] = (), *, done: bool = False) -> Self:
        """The same of somebody of whom the hash alone is known."""
        before = next((one for one in self.acts if one.hash == hash_), None)
        today = datetime.now(UTC).strftime("%Y-%m-%d")
        seen = tuple(sorted({*(before.versions if before else ()), *versions}, key=int))
        act = Act(hash_, today, seen, done)
        list_ = replace(self, acts=(*(one for one in self.acts if one.hash != hash_), act))
        place, storage = _place(self.name), Storage.of(self.root)
        content: dict[str, Any] = {"key": fingerprint(privacy_key(self.root)), "acts": [asdict(one) for one in list_.acts]}
        (self.root / place).parent.mkdir(parents=True, exist_ok=True)
        write_sealed(self.root / place, content)
        if storage.url:
            storage.write_json(place, content)
        return list_


def values_of(raw: str) -> set[str]:
    """The values in the text of a row: those of a JSON object, or what stands between separators."""
    try:
        content = json.loads(raw)
    except ValueError:
        content = None
    if isinstance(content, dict):
        return {str(value) for value in content.values() if value is not None}
    return {raw, *SEPARATORS.split(raw)}


def _place(name: str) -> str:
    return f"{FOLDER}/{name}.json"
