"""The log of the service: a JSON object a line, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any


class Lines(logging.Formatter):
    """Log lines as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        message = record.getMessage()
        said: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname.lower()}
        said |= json.loads(message) if record.name == "nightloom.access" else {"message": message}
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def configure_log(access: bool) -> None:
    """Log so from now on.

    Args:
        access: whether each request is a line, too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    for name in ("nightloom", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    logging.getLogger("nightloom").setLevel(logging.INFO)
    logging.getLogger("nightloom.access").setLevel(logging.INFO if access else logging.WARNING)
