"""What is fuzzed: bytes become a config, a table or a bundle, which is read, or refused by an InputError. All else is a bug."""

from __future__ import annotations

import io
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from nightloom.config import DataConfig, load_config
from nightloom.core.errors import InputError
from nightloom.data.sources.files import parts_at, read_part
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.manifest import FILE
from nightloom.packaging.serving_format import FILE as SERVING_FILE
from nightloom.packaging.serving_format import ServingManifest
from tests.small_bundle import small_bundle

CONFIG = b"""name: mine
data:
  events: ratings.csv
  items: movies.csv
  columns:
    events: {user_id: userId, item_id: movieId, timestamp: timestamp, value: rating}
  event_filter: {since: 2010-01-13}
training: {epochs: 2, workers: 1, precision: fp32}
evaluation: {protocols: [streaming, leave_one_out]}
"""
TABLES = ("csv", "csv.gz", "jsonl", "json", "parquet", "feather", "xlsx", "zip", "tsv")
SEEDS = {
    "csv": b"user,item,at,value\nu1,i1,1600000000,3\nu2,i2,1600000001,4\n",
    "jsonl": b'{"user": "u1", "item": "i1", "at": 1600000000}\n{"user": "u2", "item": "i2", "at": 1600000001}\n',
}


def fuzz_config(data: bytes) -> None:
    """A YAML file of any bytes."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "mine.yaml"
        path.write_bytes(data)
        with suppress(InputError):
            load_config(path)


def fuzz_table(data: bytes) -> None:
    """A table of any bytes, with a name of a form that the first byte chooses."""
    form = TABLES[data[0] % len(TABLES)] if data else "csv"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / f"events.{form}"
        path.write_bytes(data[1:])
        with suppress(InputError):
            for part in parts_at(str(path), "events"):
                read_part(part, DataConfig(events=str(path)), "events")


@cache
def _home() -> tempfile.TemporaryDirectory[str]:
    """Where the whole bundle lies until this process ends."""
    return tempfile.TemporaryDirectory()


@cache
def _whole() -> Path:
    """A bundle as it was written, and beside it its serving manifest."""
    return small_bundle(Path(_home().name) / "bundle")


def fuzz_bundle(data: bytes) -> None:
    """A bundle of which one file, that the first byte chooses, is other bytes; it is opened whole or not at all."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy = Path(folder) / "bundle"
        shutil.copytree(_whole(), copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        found = files[data[0] % len(files)] if data else copy / FILE
        before = found.read_bytes()
        found.write_bytes(data[1:])
        (copy / SERVING_FILE).write_bytes(data[1:])
        with suppress(InputError):
            ServingManifest.read(copy)
        (copy / SERVING_FILE).unlink()
        try:
            Bundle.load(copy)
        except InputError:
            return
        assert found.name == FILE or data[1:] == before, f"{found.name} was changed, and nobody saw it"


def fuzz_archive(data: bytes) -> None:
    """A ZIP whose members have any names: they are read, or refused, and nothing is written outside its folder."""
    name, content = data[:60].decode("utf-8", "ignore"), data[60:]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        home = Path(folder) / "inside"
        home.mkdir()
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr(zipfile.ZipInfo(name or "x"), content)
        path = home / "events.zip"
        path.write_bytes(made.getvalue())
        with suppress(InputError):
            for part in parts_at(str(path), "events"):
                read_part(part, DataConfig(events=str(path)), "events")
        assert [one.name for one in Path(folder).iterdir()] == ["inside"]
        assert [one.name for one in home.iterdir()] == ["events.zip"]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "config": fuzz_config,
    "table": fuzz_table,
    "bundle": fuzz_bundle,
    "archive": fuzz_archive,
}


def seeds(target: str) -> list[bytes]:
    """Inputs that are well, from which a fuzzer starts."""
    if target == "config":
        return [CONFIG]
    if target == "table":
        return [bytes([TABLES.index(form)]) + content for form, content in SEEDS.items()]
    if target == "archive":
        return [
            name.ljust(60).encode() + SEEDS["csv"] for name in ("events.csv", "../../events.csv", "/etc/events.csv", "a\0b.csv", "\0.csv")
        ]
    files = sorted(path for path in _whole().rglob("*") if path.is_file())
    small = [(number, path) for number, path in enumerate(files) if path.stat().st_size < np.iinfo(np.uint16).max]
    return [bytes([number]) + path.read_bytes() for number, path in small]
