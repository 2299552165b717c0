"""The command `nightloom`, one group of commands a file.

Heavy libraries are imported by the commands that need them, so that `nightloom --help` or a typo answers at once.
"""

from nightloom.cli import (  # each adds its commands to the app
    compare,
    compress,
    content,
    doctor,
    explain,
    nights,
    people,
    recommend,
    serve,
    tables,
    versions,
)
from nightloom.cli.app import app, main

__all__ = [
    "app",
    "compare",
    "compress",
    "content",
    "doctor",
    "explain",
    "main",
    "nights",
    "people",
    "recommend",
    "serve",
    "tables",
    "versions",
]
