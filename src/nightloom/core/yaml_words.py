"""Values as YAML, for messages: what they propose can be pasted into a config."""

from __future__ import annotations

import json
import re

PLAIN = re.compile(r"[A-Za-z_/.][\w ./-]*")
RESERVED = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


def scalar(value: str) -> str:
    """A string as YAML, quoted where it would be read as something else."""
    plain = PLAIN.fullmatch(value) and value == value.strip() and value.lower() not in RESERVED
    return value if plain else json.dumps(value, ensure_ascii=False)
