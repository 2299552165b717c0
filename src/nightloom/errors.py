"""Errors a person can act on. Everything else is a fault of ours and keeps its traceback."""

from __future__ import annotations


class NightloomError(Exception):
    """Base of all errors that Nightloom raises on purpose; the process exits with `exit_code`."""

    exit_code = 1


class InputError(NightloomError):
    """What the user handed in is refused: a file, a column, a config key, a broken data contract.

    The message says which file, column and how many rows, and what to do. Nothing was changed.
    """

    exit_code = 2


class ContractBroken(InputError):
    """The data break their contract beyond the limits; the bad rows and the Data Docs are on disk."""


class TrainingError(NightloomError):
    """A training worker failed; the message holds the end of its log and where to resume."""
