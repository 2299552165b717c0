"""PostgreSQL, an S3 store and Prefect's server for all recovery tests.

Each recommender has a database and a place in the store of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import fsspec
import pytest

from tests.postgres_server import PostgresServer, postgres_server
from tests.recovery.parts import Parts, database, prefect_on
from tests.s3_server import s3_server
from tests.servers import free_port
from tests.small_home import write_home
from tests.tiny_models import tiny_bert

Maker = Callable[[], Parts]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as found:
        yield found


@pytest.fixture(scope="session")
def prefect_api(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server on PostgreSQL."""
    folder, port = tmp_path_factory.mktemp("prefect"), free_port()
    with prefect_on(database(postgres, "prefect"), folder, port):
        yield f"http://127.0.0.1:{port}/api"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture(scope="session")
def maker(postgres: PostgresServer, store: dict[str, str], prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    """Makes recommenders, all of the same tables."""
    numbers, made = count(), ExitStack()
    model = str(tiny_bert(tmp_path_factory.mktemp("model") / "bert"))  # of all of them: its folder is in the config, and so in the results

    def make() -> Parts:
        number = next(numbers)
        home, bucket = tmp_path_factory.mktemp(f"home-{number}"), f"bucket-{number}"
        fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True).mkdir(bucket)
        settings = store | {
            "NIGHTLOOM_ROOT": str(home / "mlruns"),
            "NIGHTLOOM_STORE": f"s3://{bucket}/mine",
            "NIGHTLOOM_MLFLOW_URI": database(postgres, f"mlflow-{number}"),
            "PREFECT_API_URL": prefect_api,
        }
        parts = Parts(write_home(home, workers=2, model=model), settings, postgres, bucket)
        made.callback(parts.end)
        return parts

    with made:
        yield make


@pytest.fixture(scope="session")
def undisturbed(maker: Maker) -> Parts:
    """A recommender with one night that nothing happened to."""
    found = maker()
    found.night()
    return found
