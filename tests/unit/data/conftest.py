from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nightloom.config import load_preset, presets
from nightloom.data.sources import named
from nightloom.data.sources.sets.files import Fetched
from nightloom.data.tables.canonical import canonical
from nightloom.data.tables.schema import Tables

RealSet = Callable[[str], tuple[Fetched, Tables]]


@pytest.fixture
def real_set(tmp_path: Path) -> RealSet:
    """A named set as it lies in NIGHTLOOM_DATA, fetched and made canonical as its preset says; skips where it does not lie there."""

    def fetch(name: str) -> tuple[Fetched, Tables]:
        place, files = os.environ.get(named.FOLDER), named.FILE_SETS[name]
        file = next(iter(files.files))
        if not place or not any((Path(place) / folder / file).exists() for folder in (files.folder, ".")):
            pytest.skip(f"{files.title} is not in {named.FOLDER}")
        fetched = named.fetch(name, tmp_path)
        tables = canonical(fetched.tables, load_preset(name if name in presets() else f"ads-{name}").data)
        assert tables.rejected == {}
        assert fetched.licence
        return fetched, tables

    return fetch
