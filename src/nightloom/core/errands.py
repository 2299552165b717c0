"""A process that does what a file says, and ends with the exit code of what was refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nightloom.core.errors import NightloomError


def run_errand(path: Path, work: Callable[[dict[str, Any]], None]) -> int:
    """Do the work that a file of JSON describes; gives the exit code, and says on standard error why it was refused."""
    try:
        work(json.loads(path.read_text(encoding="utf-8")))
    except NightloomError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0
