"""Errors a person can act on. Everything else is a fault of ours and keeps its traceback."""

from __future__ import annotations

from pathlib import Path


class NightloomError(Exception):
    """Base of all errors that Nightloom raises on purpose; the process exits with `exit_code`."""

    exit_code = 1


class InputError(NightloomError):
    """What the user handed in is refused: a file, a column, a config key, a broken data contract.

    The message says which file, column and how many rows, and what to do. Nothing was changed.
    """

    exit_code = 2


class DamagedError(InputError):
    """A file is no longer what was written.

    Attributes:
        path: the file.
        found: what is wrong with it, with the expected and the found digest.
    """

    def __init__(self, path: Path, found: str, remedy: str = "") -> None:
        super().__init__(f"{path}: damaged, {found}. {remedy}".rstrip())
        self.path, self.found = path, found


class ContractBroken(InputError):
    """The data break their contract beyond the limits; the bad rows and the Data Docs are on disk.

    Attributes:
        folder: where they are, and where the message says they are.
    """

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder

    def moved(self, folder: Path) -> ContractBroken:
        """The same error, told of another folder."""
        return ContractBroken(str(self).replace(str(self.folder), str(folder)), folder)


class TrainingError(NightloomError):
    """A training worker failed; the message holds the end of its log and where to resume."""


class RenamedWarning(FutureWarning):
    """An old name was used, which goes away with the next version."""
