"""Standard output and error as the terminal has them: what they can not show is written in another way and ends nothing."""

from __future__ import annotations

import io
import sys


def any_encoding() -> None:
    r"""Have letters that a stream's encoding lacks written as `\u2713`; under LANG=C or in an old log file that is most of them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
