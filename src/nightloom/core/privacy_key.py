"""The key under which ids of people are hashed, and the hashes: HMAC-SHA256. Without the key nobody can try out ids.

It is the environment's (`NIGHTLOOM_PRIVACY_KEY`, 16 characters at least), or a random one in `privacy.key` under the mlruns folder,
which never goes to the registry or to the store that machines share. Machines that shall agree need the environment's.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from nightloom.core.errors import InputError

VARIABLE = "NIGHTLOOM_PRIVACY_KEY"
FILE = "privacy.key"
SHORTEST = 16
MARK = "forgotten:"
"""What a mark of somebody who was forgotten begins with; no id of a person does."""


def key_of_environment() -> bytes | None:
    """The environment's key; None where none is set.

    Raises:
        InputError: it is too short to resist guessing.
    """
    said = os.environ.get(VARIABLE)
    if not said:
        return None
    if len(said) < SHORTEST:
        raise InputError(
            f'{VARIABLE}: {len(said)} characters, at least {SHORTEST} are needed. Make one: python -c "import secrets; '
            'print(secrets.token_hex(32))"'
        )
    return said.encode()


def privacy_key(root: Path) -> bytes:
    """The key of the environment or of the mlruns folder, which is made where there is none.

    Raises:
        InputError: as `key_of_environment`, or the file is damaged.
    """
    given = key_of_environment()
    if given is not None:
        return given
    path = root / FILE
    if not path.is_file():
        root.mkdir(parents=True, exist_ok=True)
        scratch = root / f".{FILE}-{secrets.token_hex(8)}"
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, path)  # of two processes one makes it, and both read that one
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
    found = path.read_bytes().strip()
    if len(found) < SHORTEST:
        raise InputError(f"{path}: damaged, it holds {len(found)} characters. Bring it back from a backup, or set {VARIABLE}.")
    return found


def keyed_hash(key: bytes, purpose: str, text: str) -> str:
    """Hash of a text, 64 hex digits. Hashes of different purposes can not be matched with each other."""
    return hmac.new(key, f"{purpose}\0{text}".encode(), sha256).hexdigest()


def fingerprint(key: bytes) -> str:
    """What tells keys apart and does not tell the key, 16 hex digits."""
    return keyed_hash(key, "fingerprint", "")[:16]


def forgotten_hash(key: bytes, user: str) -> str:
    """What stands for somebody who was forgotten."""
    return keyed_hash(key, "forgotten", user)


def forgotten_mark(key: bytes, user: str) -> str:
    """The same as a row's id in the service's store; it says by which key it was made."""
    return f"{MARK}{fingerprint(key)}:{forgotten_hash(key, user)}"


def hashes_in(marks: Iterable[str], key: bytes, what: str) -> set[str]:
    """The hashes of some marks.

    Raises:
        InputError: another key made one; names `what`.
    """
    found = [mark.removeprefix(MARK).partition(":") for mark in marks]
    for made_by, apart, _ in found:
        if apart:  # those of the version before say no key, and are of this machine
            check_fingerprint(key, made_by, what)
    return {hash_ or made_by for made_by, _, hash_ in found}


def check_fingerprint(key: bytes, expected: str, what: str) -> None:
    """Refuse a key that is not the one by which something was made.

    Raises:
        InputError: it is another one; names `what`.
    """
    if fingerprint(key) != expected:
        raise InputError(
            f"{what}: made by the key {expected}, and the key here is {fingerprint(key)}. Set {VARIABLE} to the key it was made by, "
            f"or bring back {FILE} of that mlruns folder."
        )
