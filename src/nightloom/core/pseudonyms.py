"""Pseudonyms in the place of people's ids: HMAC-SHA256 with a key of the environment, the same from collect to the service.

`data.pseudonyms: true` has collect write them before anything reaches the disk. A snapshot says by the key's fingerprint that it holds
them; whoever looks people up in it uses this function with the same key, and is refused with another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nightloom.core.errors import InputError
from nightloom.core.privacy_key import VARIABLE, check_fingerprint, fingerprint, key_of_environment, keyed_hash

SAID = "pseudonyms"
"""Key in the `source` of snapshot.json: the fingerprint of the key."""
LENGTH = 32
"""Hex digits of a pseudonym: 128 bits, by which a billion people meet by chance once in 10^20 times."""


@dataclass(frozen=True)
class Pseudonyms:
    """The pseudonyms of one key."""

    key: bytes

    @classmethod
    def of_environment(cls, what: str) -> Self:
        """Those of the environment's key.

        Raises:
            InputError: there is none; names `what` needs it.
        """
        key = key_of_environment()
        if key is None:
            raise InputError(f"{what}: people are named by pseudonyms there. Set {VARIABLE} to the key by which they are made.")
        return cls(key)

    @property
    def fingerprint(self) -> str:
        """What tells the key from others."""
        return fingerprint(self.key)

    def __call__(self, user: str) -> str:
        """The pseudonym of an id."""
        return keyed_hash(self.key, "pseudonym", user)[:LENGTH]

    def of(self, users: Iterable[str]) -> dict[str, str]:
        """Id -> pseudonym."""
        return {user: self(user) for user in users}


def pseudonyms_of(snapshot: Path | None) -> Pseudonyms | None:
    """The pseudonyms of a snapshot, with the key that they were made by; None where it holds ids.

    Args:
        snapshot: its folder; None where there is none.

    Raises:
        InputError: the environment has no key, or another one.
    """
    path = None if snapshot is None else snapshot / "snapshot.json"
    if path is None or not path.is_file():
        return None
    said: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")).get("source") or {}
    if SAID not in said:
        return None
    found = Pseudonyms.of_environment(str(path))
    check_fingerprint(found.key, str(said[SAID]), f"{path}: pseudonyms")
    return found
