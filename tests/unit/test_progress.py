"""Telling Prefect how far a stage is never ends the stage."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from nightloom.runs.stages import Night
from tasks.progress import ProgressBar, artifact_key, name_run
from tests.small_bundle import small_config


def test_a_server_that_does_not_answer_ends_no_training() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}), ProgressBar("key", "Title") as bar:
        bar.update(0.5, "epoch 1")
        bar.update(0.2, "epoch 2")
        assert bar.reached == 0.5
    assert bar.reached == 1.0


def test_a_failure_does_not_fill_the_bar() -> None:
    def fails(bar: ProgressBar) -> None:
        with bar:
            raise RuntimeError("no memory left")

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        bar = ProgressBar("key", "Title")
        with pytest.raises(RuntimeError, match="no memory left"):
            fails(bar)
    assert bar.reached == 0.0


def test_outside_a_run_nothing_is_named(tmp_path: Path) -> None:
    name_run(Night(small_config(), "20260102-020000", tmp_path), "promoted")


def test_keys_of_artifacts() -> None:
    assert artifact_key("night", "Films_2") == "night-films-2"
