"""Whole numbers and times as requests and rules say them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

LATEST = 253_402_300_799
"""The last second of the year 9999."""
LONG, SHORT = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])", "(0[469]|11)-(0[1-9]|[12][0-9]|30)"
LEAP = "(19(7[26]|8[048]|9[26])|2[0-9](0[48]|[2468][048]|[13579][26])|2[048]00)-02-29"
CLOCK = r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
MOMENT = f"^((19[7-9][0-9]|2[0-9]{{3}})-({LONG}|{SHORT}|02-(0[1-9]|1[0-9]|2[0-8]))|{LEAP}){CLOCK}$"
"""A time as RFC 3339 has it, with its zone, from 1970 to 2999; leap years included."""


def _milliseconds(said: Any) -> Any:
    """Milliseconds since 1970 of seconds since 1970, or of text."""
    if isinstance(said, str) and re.fullmatch(MOMENT, said, re.ASCII):
        return round(datetime.fromisoformat(said).timestamp() * 1000)
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said <= LATEST:
        raise ValueError("is neither seconds since 1970, up to the year 9999, nor a time such as 2026-11-30T12:00:00Z")
    return round(said * 1000)


def _whole(said: Any) -> Any:
    """JSON knows no integers: 5.0 is one."""
    return int(said) if isinstance(said, float) and said.is_integer() else said


WHOLE = BeforeValidator(_whole)
"""Goes last in a whole number's annotation: 5.0 is one, as JSON schema has it."""
NUMBER = {"type": "number", "minimum": 0, "maximum": LATEST}
Time = Annotated[
    int,
    BeforeValidator(_milliseconds),
    WithJsonSchema({"anyOf": [NUMBER, {"type": "string", "pattern": MOMENT}]}, mode="validation"),
]
"""Seconds since 1970, or text as RFC 3339 has it; milliseconds, once it is read."""
