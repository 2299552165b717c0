"""A served bundle for all tests of a folder, and workers on a store of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.model.engine import Engine
from tests.service_app import Worker, make_served, name_champion
from tests.serving_bundle import serving_bundle


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


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Bundle and engine by the arguments of `serving_bundle`."""
    made: dict[str, tuple[Bundle, Engine]] = {}

    def pair(**said: Any) -> tuple[Bundle, Engine]:
        if repr(said) not in made:
            folder = tmp_path_factory.mktemp("pair")
            bundle = serving_bundle(folder / "bundle", **said)
            write_serving(bundle, folder / "serving")
            made[repr(said)] = Bundle.load(bundle), Engine.open(folder / "serving")
        return made[repr(said)]

    return pair
