"""API keys: who may read, write, and remove."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from typing import Self

from nightloom.core.errors import InputError

KEYS = "NIGHTLOOM_API_KEYS"
"""Environment variable, such as `reader:KEY,writer:KEY,admin:KEY`; a role may have several."""
ROLES: Sequence[str] = ("reader", "writer", "admin")
"""Each may do what those before it may."""
SHORTEST = 16
"""Characters of a key."""
WRITES = ("/events", "/bulk", "/feedback", "/items")


class Keys:
    """The keys of a service; without any, everybody may do everything.

    Args:
        roles: key -> its role.
    """

    def __init__(self, roles: Mapping[str, str]) -> None:
        self._roles = [(key.encode(), ROLES.index(role)) for key, role in roles.items()]

    @classmethod
    def of_environment(cls) -> Self:
        """Those of `NIGHTLOOM_API_KEYS`.

        Raises:
            InputError: it is not written as it should be.
        """
        roles: dict[str, str] = {}
        for part in filter(None, (one.strip() for one in os.environ.get(KEYS, "").split(","))):
            role, colon, key = part.partition(":")
            if not colon or role not in ROLES or len(key) < SHORTEST or not key.isascii():
                raise InputError(
                    f"{KEYS}: a part is not ROLE:KEY with a role of {', '.join(ROLES)} and a key of {SHORTEST} plain characters or more. "
                    "Write for example reader:0123456789abcdef,admin:fedcba9876543210"
                )
            roles[key] = role
        return cls(roles)

    def __bool__(self) -> bool:
        return bool(self._roles)

    def refusal(self, method: str, path: str, authorization: bytes) -> tuple[int, str] | None:
        """Status and words where a request is not allowed.

        Args:
            method: of HTTP.
            path: of the request.
            authorization: the header's value.
        """
        if not self._roles:
            return None
        scheme, _, given = authorization.partition(b" ")
        held = -1
        for key, role in self._roles:  # all are compared, and each in constant time, so that the time says nothing
            if hmac.compare_digest(key, given.strip()):
                held = role
        if held < 0 or scheme.lower() != b"bearer":
            return 401, "Send the header Authorization: Bearer KEY with one of the service's keys."
        needed = needed_role(method, path)
        return None if held >= needed else (403, f"This needs a key of the role {ROLES[needed]}.")


def needed_role(method: str, path: str) -> int:
    """The role that a request needs: whoever asks reads, and who removes a person or an item administers."""
    if method == "DELETE":
        return 2 if path.startswith(("/users", "/items")) else 1
    return 1 if method in ("POST", "PUT", "PATCH") and path.startswith(WRITES) else 0
