"""A served bundle for all tests of a folder, and workers on a store of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service_app import Worker, make_served, name_champion


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle, artefact and snapshot."""
    return make_served(tmp_path_factory.mktemp("served"))


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A service's folder, which names the champion."""
    name_champion(tmp_path, made)
    return tmp_path


@pytest.fixture
def worker(home: Path) -> Iterator[Worker]:
    """One worker."""
    with Worker(home) as found:
        yield found
