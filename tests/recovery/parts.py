"""A recommender whose nights run on real parts: MLflow and Prefect on PostgreSQL, files in an S3 store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import psutil
import psycopg2

from tests.postgres_server import PostgresServer
from tests.servers import until_it_answers

REPOSITORY = Path(__file__).parents[2]
MADE = ("validate", "prepare", "load_pretrained", "fine_tune", "evaluate", "explain")
"""Stages whose results do not name the night that made them."""
END_SECONDS = 30.0
"""How long what a killed night had started may live on."""


def add_a_day(home: Path) -> None:
    """One more event of each of some people, so that the next night has something to do."""
    events = pd.read_csv(home / "ratings.csv", dtype={"movieId": str})
    more = events.groupby("userId").tail(1).head(10)
    more = more.assign(timestamp=more["timestamp"] + 86_400, movieId=[f"{number:03d}" for number in range(10)])
    pd.concat([events, more]).to_csv(home / "ratings.csv", index=False)


@dataclass
class Parts:
    """One recommender's home with what its nights use.

    Attributes:
        home: the working directory.
        settings: environment of its nights.
        postgres: the server of the databases.
        bucket: of the store.
    """

    home: Path
    settings: dict[str, str]
    postgres: PostgresServer
    bucket: str
    mark: str = field(init=False)
    database: str = field(init=False)
    _killers: dict[tuple[str, ...], subprocess.Popen[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.database = self.settings["NIGHTLOOM_MLFLOW_URI"]  # where MLflow's tables are, also if a server comes between
        self.mark = f"{self.home}:{os.urandom(4).hex()}"

    @property
    def root(self) -> Path:
        """The mlruns folder."""
        return Path(self.settings["NIGHTLOOM_ROOT"])

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
            "PREFECT_HOME": str(self.home / "prefect"),
            "HF_HUB_OFFLINE": "1",
            "RECOVERY_TEST_OF": self.mark,
        }
        return os.environ | own | self.settings

    def start(self, *arguments: str, module: str = "flows.nightly", **settings: str) -> subprocess.Popen[bytes]:
        """A night that goes on by itself; what it says is in `log`."""
        command = [sys.executable, "-m", module, *arguments, "--config", "mine.yaml"]
        with (self.home / "log").open("wb") as said:  # no pipe: what a kill leaves behind would keep it open
            return subprocess.Popen(command, cwd=self.home, env=self.environment | settings, stdout=said, stderr=said)

    def night(self, *arguments: str, **settings: str) -> None:
        """A night that has to end well."""
        code = self.start(*arguments, **settings).wait(500)
        assert code == 0, self.said()

    def killed(self, where: str, *arguments: str) -> int:
        """The exit code of a night that is killed at a place, once nothing that it had started is there any more."""
        if arguments not in self._killers:
            command = [sys.executable, "-m", "tests.recovery.killed", *arguments, "--config", "mine.yaml"]
            with (self.home / "killers").open("ab") as said:
                self._killers[arguments] = subprocess.Popen(
                    command, cwd=self.home, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
                )
        killer = self._killers[arguments]
        assert killer.stdin is not None
        assert killer.stdout is not None
        killer.stdin.write(f"{where}\t{self.home / 'log'}\n")
        killer.stdin.flush()
        code = killer.stdout.readline()
        assert code, (self.home / "killers").read_text(errors="replace")[-4000:]
        self.nothing_runs()
        return int(code)

    def end(self) -> None:
        """End what its tests started."""
        for killer in self._killers.values():
            killer.kill()
            killer.wait()

    def said(self) -> str:
        """What the last night said."""
        return (self.home / "log").read_text(errors="replace")[-4000:]

    def processes(self) -> list[str]:
        """Processes that this recommender's nights started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid in [one.pid for one in self._killers.values()]:
                    continue
                if process.environ().get("RECOVERY_TEST_OF") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        return found

    def nothing_runs(self) -> None:
        """Wait until no process of its nights is there."""
        ends = time.monotonic() + END_SECONDS
        while found := self.processes():
            assert time.monotonic() < ends, f"left behind: {found}"
            time.sleep(0.2)

    def report(self) -> dict[str, Any]:
        """What the last night reported."""
        found: dict[str, Any] = json.loads((self.root / "nights" / "mine" / "latest" / "report.json").read_text(encoding="utf-8"))
        return found

    def results(self) -> dict[str, Any]:
        """What the last night made, without what tells one night from another: content hashes, ranks, decision, what serves."""
        latest, report = self.root / "nights" / "mine" / "latest", self.report()
        manifests = {stage: json.loads((latest / "manifests" / f"{stage}.json").read_text(encoding="utf-8")) for stage in MADE}
        return {
            "data": report["data_hash"],
            "config": report["config_hash"],
            "metrics": report["metrics"],
            "decision": report["gate"]["decision"],
            "reasons": report["gate"]["reasons"],
            **{stage: said["content"] for stage, said in manifests.items()},
            "bundle": {name: digest for name, digest in manifests["fine_tune"]["digests"].items() if "/bundle/" in name},
        }

    def known_to_others(self) -> bool:
        """Whether the store names the night that is the last one here."""
        store = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        said = json.loads(store.cat_file(f"{self.bucket}/mine/nights/mine/latest.json"))
        return bool(said["night"] == (self.root / "nights" / "mine" / "latest").resolve().name)

    def half_files(self) -> list[str]:
        """Files and folders here, and folders in the store, that are not whole."""
        found = [
            str(path) for path in self.root.rglob("*") if path.name.endswith((".partial", ".tmp")) or path.name.startswith(".partial-")
        ]
        store = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        places = {
            "/".join(path.split("/")[: 6 if "/stages/" in path else 5]) for path in store.find(self.bucket) if self._in_a_folder(path)
        }
        return found + [place for place in sorted(places) if not store.exists(f"{place}/published.json")]

    @staticmethod
    def _in_a_folder(path: str) -> bool:
        """Whether it is in a folder that has to have an index."""
        kind, rest = path.split("/")[2], path.split("/")[4:]
        return kind in ("stages", "snapshots", "nights") and len(rest) > 1

    def registered(self) -> dict[str, Any]:
        """Versions by what they were trained from, and what serves, as MLflow's database has them."""
        with psycopg2.connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT version FROM model_versions WHERE name = 'nightloom-mine' ORDER BY version")
            versions = [str(row[0]) for row in cursor.fetchall()]
            cursor.execute("SELECT alias, version FROM registered_model_aliases WHERE name = 'nightloom-mine'")
            aliases = {alias: str(version) for alias, version in cursor.fetchall()}
            cursor.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'")
            (running,) = cursor.fetchone()
        return {"versions": versions, "aliases": aliases, "running": running}

    def forget_disk(self) -> None:
        """As on another machine: nothing is left but the store and the databases."""
        shutil.rmtree(self.root)


@contextmanager
def server(command: list[str], port: int, health: str, log: Path, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server while the block runs; it may be killed in it."""
    with log.open("ab") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | settings, start_new_session=True)
    try:
        until_it_answers(f"http://127.0.0.1:{port}{health}", process, log)
        yield process
    finally:
        end_group(process)


def prefect_on(address: str, folder: Path, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Prefect's server on a database, while the block runs."""
    settings = {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_DATABASE_CONNECTION_URL": address.replace("postgresql://", "postgresql+asyncpg://"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
    return server(command, port, "/api/health", folder / "log", settings)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a server and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait(30)


def database(postgres: PostgresServer, name: str) -> str:
    """Address of a new database."""
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    connection.close()
    return f"{postgres.url.rpartition('/')[0]}/{name}"
