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
    if not re.fullmatch(NAME, name):
        raise InputError(
            f"the recommender {name!r} is no name. Use small letters, digits, - and _, up to 63 of them, a letter or digit first."
        )


def check_study(name: str) -> None:
    """Refuse what is no study's name.

    Raises:
        InputError: it is none.
    """
    if not re.fullmatch(STUDY, name):
        raise InputError(
            f"--study {name!r} is no name. Use letters, digits, blanks, - . and _, up to 100 of them, a letter or digit first."
        )
