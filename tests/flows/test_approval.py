"""A night asks in Prefect's page whether what waits becomes champion: on a real server, answered as the page does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Pending

from nightloom.config import load_preset
from nightloom.promotion.registry import Registry
from nightloom.promotion.review import APPROVED_BY, approve
from nightloom.runs.stages import Manifest, Night
from tasks import approval
from tasks.progress import PROCESS_LABEL
from tests.small_bundle import small_bundle
from tests.unit.promotion.test_review import registered

ROOT = Path(__file__).parents[2]
SECONDS = 300


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """What Prefect leaves in a process where it ran a flow would break the forks of other tests: so flows have one of their own."""
    folder = tmp_path_factory.mktemp("approval")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        registry, bundle = Registry(folder / "mlruns"), small_bundle(folder / "bundle")
        yield SimpleNamespace(registry=registry, root=folder / "mlruns", bundle=bundle, process=process)


@flow(name="asks", flow_run_name="{name}", validate_parameters=False)
def asks(root: str, name: str, hours: float = 1.0) -> Manifest | None:
    """What a night does when its report is written."""
    approval.LOOK_SECONDS = 0.5
    settings = ["promotion.mode=review", f"promotion.ask_hours={hours}"]
    night = Night.start(load_preset("movies-small", settings).model_copy(update={"name": name}), Path(root))
    promoted = Manifest("promote", "key", root, figures={"decision": {"decision": "promote"}})
    assert approval.asks(night, {"outcome": "waits"})
    assert not approval.asks(night, {"outcome": "rejected"})
    return approval.ask(night, promoted)


def asked(root: Path, server: str, name: str, hours: float) -> Manifest | None:
    """Run a flow that asks; gives what it goes on with."""
    with temporary_settings({PREFECT_API_URL: server}):
        return asks(str(root), name, hours)


def named(name: str) -> FlowRunFilter:
    return FlowRunFilter(name=FlowRunFilterName(any_=[name]))


def asking_of(name: str) -> FlowRunFilter:
    """The runs that wait for an answer about a recommender."""
    return FlowRunFilter(name=FlowRunFilterName(like_=f"{name} version"))


class Asking:
    """A run of Prefect's that asks about a recommender, in another process.

    Args:
        server: Prefect's address.
        name: of the recommender.
        said: what it goes on with.
    """

    def __init__(self, server: str, name: str, said: Future[Manifest | None]) -> None:
        self.name, self.server, self.said = name, server, said

    @classmethod
    def about(cls, home: SimpleNamespace, server: str, name: str, hours: float = 1.0) -> Asking:
        """Start one that waits for so many hours."""
        return cls(server, name, home.process.submit(asked, home.root, server, name, hours))

    def paused(self, but: UUID | None = None) -> Any:
        """The run that waits for an answer, once it does: another one than the one that was answered."""
        ends = time.monotonic() + SECONDS
        with SyncPrefectClient(self.server) as client:
            while time.monotonic() < ends and not self.said.done():
                for run in client.read_flow_runs(flow_run_filter=asking_of(self.name)):
                    if run.state and run.state.type == StateType.PAUSED and run.id != but:
                        schema = client.read_flow_run_input(run.id, run.state.state_details.run_input_keyset["schema"])
                        if schema:
                            return run
                time.sleep(0.2)
        raise AssertionError(self.said.result(1))

    def answer(self, decision: str, name: str) -> str:
        """Answer as the form does; gives what the server made of it."""
        run = self.paused()
        with SyncPrefectClient(self.server) as client:
            self.last = run.id
            return client.resume_flow_run(run.id, run_input={"decision": decision, "name": name}).status.value

    def result(self) -> dict[str, Any] | None:
        """What the night goes on with."""
        found = self.said.result(SECONDS)
        return None if found is None else {key: found.figures[key] for key in ("answer", "versions")}

    def state(self) -> StateType:
        with SyncPrefectClient(self.server) as client:
            (run,) = client.read_flow_runs(flow_run_filter=named(self.name))
        assert run.state is not None
        return run.state.type


def test_another_person_than_the_one_who_started_it_approves(home: SimpleNamespace, prefect_server: str) -> None:
    registered(home, "asked", 1, None, started_by="ann")
    asking = Asking.about(home, prefect_server, "asked")
    assert asking.answer("promote", "") == "REJECT", "who says so is asked for"
    assert asking.answer("promote", "Ann") == "ACCEPT"
    again = asking.paused(but=asking.last)
    with SyncPrefectClient(prefect_server) as client:
        told = client.read_flow_run_input(again.id, again.state.state_details.run_input_keyset["description"])
    assert "ann started the night of version 1, so another person has to approve it" in str(told)
    assert home.registry.aliases("asked")["champion"] is None
    assert asking.answer("promote", "bob") == "ACCEPT"
    found = asking.result()
    assert found is not None
    assert found["answer"] == {"by": "bob", "promoted": True}
    assert found["versions"]["champion"] == "1"
    assert home.registry.versions("asked")[0].tags[APPROVED_BY] == "bob"
    assert asking.state() == StateType.COMPLETED


def test_nobody_answers_and_the_champion_stays(home: SimpleNamespace, prefect_server: str) -> None:
    approve(home.registry, registered(home, "silent", 1, None).name, "ann")
    registered(home, "silent", 2, "1")
    asking = Asking.about(home, prefect_server, "silent", hours=3 / 3600)
    assert asking.result() is None
    assert asking.state() == StateType.COMPLETED, "the night has ended well"
    assert home.registry.aliases("silent")["champion"] == "1"
    assert approve(home.registry, "silent", "bob").version == "2", "the command still can"


def test_the_command_is_quicker_and_the_night_waits_no_more(home: SimpleNamespace, prefect_server: str) -> None:
    registered(home, "quick", 1, None)
    asking = Asking.about(home, prefect_server, "quick")
    asking.paused()
    approve(home.registry, "quick", "carl")
    assert asking.result() == {"answer": {"by": "carl", "promoted": True}, "versions": home.registry.aliases("quick")}


def test_declined_it_waits_no_more(home: SimpleNamespace, prefect_server: str) -> None:
    approve(home.registry, registered(home, "declined", 1, None).name, "ann")
    registered(home, "declined", 2, "1")
    asking = Asking.about(home, prefect_server, "declined")
    assert asking.answer("keep the champion", "bob") == "ACCEPT"
    found = asking.result()
    assert found is not None
    assert (found["answer"], found["versions"]["champion"]) == ({"by": "bob", "promoted": False}, "1")


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["by hand", "in the background of a script"])
@pytest.mark.parametrize("which", ["the night", "the question"])
def test_a_run_that_is_cancelled_while_it_asks_ends(home: SimpleNamespace, prefect_server: str, which: str, handler: Any) -> None:
    """Also where Ctrl-C is ignored, and is so again afterwards."""
    name = f"cancelled-{which[4:]}-{handler is signal.SIG_IGN}"
    registered(home, name, 1, None)
    before = home.process.submit(signal.signal, signal.SIGINT, handler).result(SECONDS)
    asking = Asking.about(home, prefect_server, name)
    run = asking.paused()
    with SyncPrefectClient(prefect_server) as client:
        if which == "the night":
            (run,) = client.read_flow_runs(flow_run_filter=named(name))
        client.set_flow_run_state(run.id, Cancelled(), force=True)
    assert isinstance(asking.said.exception(SECONDS), KeyboardInterrupt)
    assert asking.state() == StateType.CRASHED, "as after Ctrl-C"
    assert home.registry.aliases(name)["champion"] is None
    assert home.process.submit(signal.signal, signal.SIGINT, before).result(SECONDS) == handler


def test_a_run_of_a_deployment_asks_and_keeps_its_place(home: SimpleNamespace, prefect_server: str, tmp_path: Path) -> None:
    registered(home, "deployed", 1, None)
    options = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    with SyncPrefectClient(prefect_server) as client:
        where = client.create_deployment(
            client.create_flow(asks),
            "deployed",
            entrypoint="tests.flows.test_approval.asks",
            parameters={"root": str(home.root), "name": "deployed"},
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
            concurrency_limit=1,
            concurrency_options=options,
        )
        run = client.create_flow_run_from_deployment(where)
        assert client.set_flow_run_state(run.id, Pending()).state.type == StateType.PENDING  # as a worker does
        command = [sys.executable, "-m", "prefect", "flow-run", "execute", str(run.id)]
        env = os.environ | {
            "PREFECT_API_URL": prefect_server,
            "PREFECT_HOME": str(tmp_path),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        }
        with (tmp_path / "log").open("wb") as said, subprocess.Popen(command, cwd=ROOT, env=env, stdout=said, stderr=said) as process:
            asking = Asking(prefect_server, "deployed", Future())
            waits = asking.paused()
            assert waits.deployment_id is None
            assert waits.labels[PROCESS_LABEL].split()[1] != str(process.pid)
            late = client.create_flow_run_from_deployment(where)
            assert client.set_flow_run_state(late.id, Pending()).state.type == StateType.CANCELLED, "its place is taken"
            assert asking.answer("promote", "bob") == "ACCEPT"
            assert process.wait(SECONDS) == 0, (tmp_path / "log").read_text(errors="replace")
        assert client.read_flow_run(run.id).state.type == StateType.COMPLETED
        after = client.create_flow_run_from_deployment(where)
        assert client.set_flow_run_state(after.id, Pending()).state.type == StateType.PENDING, "its place is free"
    assert home.registry.aliases("deployed")["champion"] == "1"
