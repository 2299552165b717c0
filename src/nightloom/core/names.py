"""Names of recommenders and studies: folders are called by them, so none may lead out of its place."""

from __future__ import annotations

import re

from nightloom.core.errors import InputError

NAME = "[a-z0-9][a-z0-9_-]{0,62}"
"""Regular expression of a recommender's name, as a whole."""
STUDY = r"\w[\w .-]{0,99}"
"""That of a study's."""


def check_name(name: str) -> None:
    """Refuse what is no recommender's name.

    Raises:
        InputError: it is none.
    """
    _check(name, NAME, "the recommender", "small letters, digits, - and _, up to 63")


def check_study(name: str) -> None:
    """Refuse what is no study's name.

    Raises:
        InputError: it is none.
    """
    _check(name, STUDY, "--study", "letters, digits, blanks, - . and _, up to 100")


def _check(name: str, pattern: str, what: str, signs: str) -> None:
    if not re.fullmatch(pattern, name):
        raise InputError(f"{what} {name!r} is no name. Use {signs} of them, a letter or digit first.")
