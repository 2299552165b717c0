"""Credentials in addresses and messages: where there are some, and a text without them.

Whatever is shown or kept (messages, logs, reports, runs, artifacts) goes through `hidden`. It knows credentials by their form in an
address, and those of the environment by their value, since the errors of other libraries repeat them in forms of their own.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit, urlunsplit

from nightloom.core.errors import NightloomError

STARS = "***"
SHORTEST = 6
"""Values of the environment that are shorter are hidden in addresses only: elsewhere they could be parts of words."""
OWNERS = ("NIGHTLOOM_", "PREFECT_", "MLFLOW_", "AWS_", "AZURE_", "GOOGLE_", "PG", "HF_", "DATABASE_", "RAY_")
"""Beginnings of variables that hold addresses and secrets of what runs here."""

_PARTS = re.compile(
    "password|passwd|passphrase|pwd|secret|token|apikey|accesskey|privatekey|accountkey|sharedkey|signature|credential|authstring"
)
_WHOLE = {"pass", "pw", "key", "sig", "sas", "auth", "authorization", "bearer", "jwt"}
_USERINFO = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<user>[^\s:/@'\"<>]*):(?P<password>[^\s@'\"<>]+)@", re.IGNORECASE)
_ALONE = re.compile(r"(?P<scheme>\bhttps?://)[^\s:/@'\"<>]+@", re.IGNORECASE)
_EQUALS = r"(?:=|%3D)"
_PAIR = re.compile(
    rf"""(?P<mark>(?:[?&;#]|%3F|%26|%3B|%23|{_EQUALS})\s*)
    (?P<key>(?:(?!{_EQUALS})[^\s&;#?'"<>])+)(?P<equals>{_EQUALS})(?P<value>(?:(?!%26|%3B)[^\s&;#'"<>])+)""",
    re.IGNORECASE | re.VERBOSE,
)
_WORD = re.compile(
    r"\b(?P<key>[\w-]*(?:password|passwd|pwd)|(?:api|access|secret)[_-]?key|token)=(?P<value>[^\s&;,'\"`<>()]+)", re.IGNORECASE
)


def is_secret_key(key: str) -> bool:
    """Whether a parameter of this name holds a secret: password, token, api_key, sig and the like, percent-encoded or not."""
    plain = re.sub("[^a-z0-9]", "", _decoded(key).lower())
    return plain in _WHOLE or _PARTS.search(plain) is not None


def has_secret(address: str) -> bool:
    """Whether an address holds a credential: a password before its @, or a parameter whose name says so."""
    text = _decoded(address)
    if _USERINFO.search(address.partition("?")[0]) or _USERINFO.search(re.split(r"[?&]query=", text, maxsplit=1)[0]):
        return True
    if "://" in text and "password" in text.partition("?")[2].lower():
        return True
    return "://" in text and any(is_secret_key(key) for key in re.findall(r"[?&;#=]\s*([^\s=&;#?]+)\s*(?==)", text))


def public(address: str) -> str:
    """An address that may stand in a link: without user, password and parameters that hold secrets.

    Args:
        address: of a page or server.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return hidden(address)
    kept = "&".join(pair for pair in parts.query.split("&") if not is_secret_key(pair.partition("=")[0]))
    return hidden(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=kept)))


def hidden(text: str) -> str:
    """A text without credentials: those in addresses and parameters, and the values that the environment holds."""
    return _hidden(text, _known(os.environ))


def hidden_in(value: Any) -> Any:
    """A JSON value whose texts are without credentials; tuples become lists."""
    return _hidden_in(value, _known(os.environ))


@contextmanager
def secrets_hidden() -> Iterator[None]:
    """Replace an error whose text holds credentials by one that does not, while the block runs.

    An error of another library can not be mended: its causes and its parts repeat the text. Its traceback goes into the message.

    Raises:
        NightloomError: in place of such an error; one of ours keeps its kind.
    """
    try:
        yield
    except Exception as error:
        said = "".join(traceback.format_exception(error))
        if hidden(said) == said and hidden(str(error)) == str(error):
            raise
        if isinstance(error, NightloomError):
            error.args = tuple(hidden(part) if isinstance(part, str) else part for part in error.args)
            raise error from None
        raise NightloomError(f"{type(error).__name__}: {hidden(str(error))}\n{hidden(said)}") from None


def hide_in_logs() -> None:
    """Have every log record and every traceback of this process, whoever writes it, go through `hidden`."""
    make = logging.getLogRecordFactory()
    if not getattr(make, "hides_secrets", False):
        logging.setLogRecordFactory(_Factory(make))
    sys.excepthook = _print_hidden


class _Factory:
    """Makes log records without credentials."""

    hides_secrets = True

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self.make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.make(*args, **kwargs)
        try:
            said = record.getMessage()
        except Exception:  # logging itself says what is wrong with the record
            return record
        if (clean := hidden(said)) != said:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            whole = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            if (clean := hidden(whole)) != whole:
                record.exc_info, record.exc_text = None, clean
        return record


def _print_hidden(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(hidden("".join(traceback.format_exception(kind, error, trace))))


def _hidden(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, STARS)
    if "=" in text or "%3" in text:
        text = _PAIR.sub(_without_value, text)
        text = _WORD.sub(lambda found: f"{found['key']}={STARS}", text)
    if "://" in text:
        text = _USERINFO.sub(lambda found: f"{found['scheme']}{found['user']}:{STARS}@", text)
        text = _ALONE.sub(lambda found: f"{found['scheme']}{STARS}@", text)
    return text


def _hidden_in(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _hidden(value, secrets)
    if isinstance(value, Mapping):
        return {key: _hidden_in(inner, secrets) for key, inner in value.items()}
    return [_hidden_in(inner, secrets) for inner in value] if isinstance(value, list | tuple) else value


def _without_value(found: re.Match[str]) -> str:
    if is_secret_key(found["key"]):
        return f"{found['mark']}{found['key']}{found['equals']}{STARS}"
    return found["mark"] + found["key"] + _PAIR.sub(_without_value, found["equals"] + found["value"])


def _decoded(text: str) -> str:
    """Percent-decoded, however often it was encoded (a few times at most)."""
    for _ in range(3):
        text, before = unquote(text), text
        if text == before:
            break
    return text


def _known(environment: Mapping[str, str]) -> list[str]:
    """Secrets that the environment holds, in every form in which a message may repeat them; the longest first."""
    found: set[str] = set()
    for name, value in environment.items():
        if not name.startswith(OWNERS) or not value:
            continue
        if "://" in value:
            found |= {match["password"] for match in _USERINFO.finditer(value)}
            found |= {match["value"] for match in _PAIR.finditer(value) if is_secret_key(match["key"])}
        elif is_secret_key(name):
            found |= {value, *value.split(":")[1:]}  # PREFECT_API_AUTH_STRING is user:password
    forms = {form for one in found for form in (one, unquote(one), unquote_plus(one), quote(unquote(one), ""), quote_plus(unquote(one)))}
    return sorted((form for form in forms if len(form) >= SHORTEST), key=lambda one: (-len(one), one))
