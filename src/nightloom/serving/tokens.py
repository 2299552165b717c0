"""Signed tokens: which recommendation feedback belongs to, and where the next page goes on. Nobody else can make or change one."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nightloom.serving.items.known_items import mark_of
from nightloom.serving.refusals import Forged

SECRET = "NIGHTLOOM_SECRET"
"""Environment variable with the secret that tokens are signed with; machines that share a recommender share it."""
HEAD = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
SIGNATURE = 16
"""Bytes of a signature."""


@dataclass(frozen=True)
class Shown:
    """What a token says. It is signed, not encrypted: whoever holds it can read the user id.

    Attributes:
        id: of the recommendation.
        version: of the model that answered.
        time: milliseconds since 1970.
        user: whom it was for; None for a history.
        items: CRC-32 of the ids of the items shown, first to last, of earlier pages too.
        before: how many of them earlier pages showed.
    """

    id: str
    version: str
    time: int
    user: str | None
    items: Sequence[int]
    before: int = 0

    def position(self, item_id: str) -> int | None:
        """Place of an item in the list, from 1, over all pages; None where it was not shown."""
        mark = mark_of(item_id)
        return self.items.index(mark) + 1 if mark in self.items else None


class Signer:
    """Makes and reads tokens.

    Args:
        secret: what they are signed with.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def of(cls, path: Path) -> Signer:
        """With the secret of the environment, or one that is made once and kept in a file that only its owner can read."""
        if said := os.environ.get(SECRET):
            return cls(said.encode())
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls(path.read_bytes())
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(32).encode())
        return cls(path.read_bytes())

    def sign(self, shown: Shown) -> str:
        """A token, URL-safe text."""
        said = [shown.id, shown.version, shown.time, shown.user, shown.before]
        head = HEAD.encode(said).encode()
        body = len(head).to_bytes(2, "big") + head + np.array(shown.items, dtype="<u4").tobytes()
        return base64.urlsafe_b64encode(self._signature(body) + body).decode().rstrip("=")

    def read(self, token: str, field: str) -> Shown:
        """What a token says.

        Args:
            token: what `sign` gave.
            field: what the request calls it.

        Raises:
            Forged: it is none of ours.
        """
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
            signature, body = raw[:SIGNATURE], raw[SIGNATURE:]
            if not hmac.compare_digest(signature, self._signature(body)):
                raise ValueError("signature")
        except (ValueError, UnicodeEncodeError, binascii.Error) as error:
            raise Forged(f"{field}: this service made no such token. Send one from an answer of /recommend as it came.") from error
        length = int.from_bytes(body[:2], "big")
        said: list[Any] = json.loads(body[2 : 2 + length])
        shown = np.frombuffer(body[2 + length :], dtype="<u4").tolist()
        return Shown(id=said[0], version=said[1], time=said[2], user=said[3], items=shown, before=said[4])

    def _signature(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, "sha256")[:SIGNATURE]
