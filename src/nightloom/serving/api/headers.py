"""Headers of every answer: a request id, and what browsers obey."""

from __future__ import annotations

import secrets

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CSP.encode()),
]
REQUEST_ID = b"x-request-id"


def request_id(given: bytes) -> str:
    """The caller's id of the request where it is a plain one, else a new one."""
    text = given.decode("latin-1")
    return text if 0 < len(text) <= 64 and text.isascii() and text.replace("-", "").replace("_", "").isalnum() else secrets.token_hex(8)
