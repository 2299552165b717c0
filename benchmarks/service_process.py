"""A service in processes of its own, on a store of its own: tests and benchmarks may write there what they like.

python -m benchmarks.service_process HOME PORT WORKERS
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nightloom.serving.server.sockets import claim
from nightloom.serving.server.workers import listen
from nightloom.serving.settings import CHAMPION, Champion, Limits, Settings, cache_bytes

START_SECONDS = 120.0


@dataclass(frozen=True)
class Running:
    """A service that answers.

    Attributes:
        home: its folder; `champion.json` there says what serves.
        log: what it has written.
    """

    home: Path
    host: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"


def command_line(description: str | None) -> argparse.ArgumentParser:
    """What a benchmark is asked that serves a champion: where it is, and its name; the benchmark's own arguments come behind."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("mlruns"))
    parser.add_argument("--name", default="movies-small")
    return parser


def champion_of(root: Path, name: str) -> Champion:
    """The champion of a recommender, ready to serve.

    Args:
        root: an mlruns folder, in which nothing but caches is written.
        name: of the recommender.
    """
    from nightloom.promotion.registry import Registry
    from nightloom.serving.prepare import prepare

    registry = Registry(root)
    version = registry.champion(name)
    if version is None:
        sys.exit(f"{name} has no champion in {root}. First: make nightly PRESET={name}")
    ready = prepare(registry, version, root)
    if ready is None:
        sys.exit("First: pip install 'nightloom[serve]'")
    return ready


@contextlib.contextmanager
def running(home: Path, champion: Champion | None = None, workers: int = 1) -> Iterator[Running]:
    """A service, until the block ends.

    Args:
        home: its folder, with the store.
        champion: what it serves; None: as the folder says already.
        workers: how many processes answer.
    """
    if champion is not None:
        champion.write(home / CHAMPION)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    log = home / "service.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.service_process", str(home), str(port), str(workers)], stdout=out, stderr=out
        )
    try:
        service = Running(home, "127.0.0.1", port, process, log)
        _until_it_answers(service)
        yield service
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        if process.poll() is None:
            process.kill()
            process.wait()


def _until_it_answers(service: Running) -> None:
    ends = time.monotonic() + START_SECONDS
    while service.process.poll() is None and time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"{service.address}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"no service at {service.address}: {service.log.read_text(errors='replace')}")


def main() -> None:
    home, port, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    settings = Settings(home, home / "shop.db", access_log=False, limits=Limits(cache_bytes=cache_bytes(workers)))
    with claim("127.0.0.1", port):
        listen(settings, "127.0.0.1", port, workers)


if __name__ == "__main__":
    main()
