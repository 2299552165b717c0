"""What the shells of stages decide for themselves; what they run has tests of its own, and whole nights those of tests/flows."""

from __future__ import annotations

import pytest
from prefect.client.schemas.actions import ArtifactCreate

from tasks.progress import artifact_key


@pytest.mark.parametrize("study", ["mine", "Shop1", "my study", "shop.v2", "a_b", "läden"])
def test_prefect_takes_the_key_of_any_name(study: str) -> None:
    key = artifact_key("tune", study)
    assert ArtifactCreate(key=key, type="table", data="x").key == key
    assert key.startswith("tune-")


def test_names_of_configs_keep_the_keys_that_they_had() -> None:
    assert artifact_key("families", "movies-small_2", "leave_one_out") == "families-movies-small-2-leave-one-out"
