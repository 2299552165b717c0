"""Names that folders are called by."""

from __future__ import annotations

import pytest

from nightloom.config import config_from_dict
from nightloom.core.errors import InputError
from nightloom.core.names import check_name, check_study

OUT = ["..", "../x", "a/b", "", ".hidden", "a\0b", "a\n", "/etc", "a\\b"]


@pytest.mark.parametrize("name", OUT)
def test_what_leads_out_of_its_folder_is_no_name(name: str) -> None:
    with pytest.raises(InputError, match="is no name"):
        check_name(name)
    with pytest.raises(InputError, match="--study"):
        check_study(name)
    with pytest.raises(InputError, match="name"):
        config_from_dict({"name": name, "data": {"events": "e.csv"}}, "mine.yaml")


def test_usual_names_are_names() -> None:
    for name in ("shop", "movies-small", "7_days"):
        check_name(name)
        check_study(name)
    check_study("Shop1 with d-64")
    with pytest.raises(InputError, match="small letters"):
        check_name("Shop")
