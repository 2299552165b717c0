"""The command `nightloom`, one group of commands a file.

Heavy libraries are imported by the commands that need them, so that `nightloom --help` or a typo answers at once.
"""

from nightloom.cli import compare, doctor, nights, recommend, serve, tables, versions  # each adds its commands to the app
from nightloom.cli.app import app, main

__all__ = ["app", "compare", "doctor", "main", "nights", "recommend", "serve", "tables", "versions"]
