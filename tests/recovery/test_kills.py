"""SIGKILL of nights on PostgreSQL and S3: the next one ends with the hashes of an undisturbed one, and nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import SetStateStatus

from tests.recovery.conftest import Maker
from tests.recovery.killed import AROUND, MOMENTS, STAGES
from tests.recovery.parts import Parts, add_a_day

pytestmark = pytest.mark.recovery
OF_STAGES = [f"{stage}: {moment}" for stage in STAGES for moment in (MOMENTS[:2] if stage == "promote" else MOMENTS)]
PLACES = [*AROUND[:2], *OF_STAGES, *AROUND[2:]]
MOST_WRITES = 40


def whole(parts: Parts, undisturbed: Parts) -> None:
    """Nothing tells the last night from one that nothing happened to."""
    assert parts.results() == undisturbed.results()
    assert parts.registered() == undisturbed.registered()
    assert parts.half_files() == []
    assert parts.processes() == []
    assert parts.known_to_others()


def test_a_night_that_is_killed_in_the_registry_ends_on_another_machine_and_is_approved(maker: Maker, prefect_api: str) -> None:
    """The version is made, and nothing else is written; a second person is asked in Prefect's page."""
    parts = maker()
    review = ("--set", "promotion.mode=review", "--set", "promotion.ask_hours=0.2")
    assert parts.killed("after write: 2", *review) == -signal.SIGKILL, parts.said()
    parts.forget_disk()
    night = parts.start(*review)
    approve_in_page(prefect_api, "mine", night)
    assert night.wait(300) == 0, parts.said()
    report = parts.report()
    assert (report["outcome"], report["answer"]) == ("promoted", {"by": "bob", "promoted": True})
    assert "approved by bob" in parts.said()
    registered = parts.registered()
    assert (registered["versions"], registered["aliases"]["champion"], registered["running"]) == (["1"], "1", 0)
    assert parts.half_files() == []
    parts.nothing_runs()


def approve_in_page(api: str, name: str, night: subprocess.Popen[bytes]) -> None:
    """Answer the form of the run that waits, as a person does."""
    waits = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    ends = time.monotonic() + 300
    with SyncPrefectClient(api) as client:
        while time.monotonic() < ends and night.poll() is None:
            for run in client.read_flow_runs(flow_run_filter=waits):
                if f"name:{name}" not in run.tags:
                    continue
                said = client.resume_flow_run(run.id, run_input={"decision": "promote", "name": "bob"})
                if said.status == SetStateStatus.ACCEPT:  # else the form is not there yet
                    return
            time.sleep(0.5)
    raise AssertionError("no run waits for an answer")


@pytest.fixture(scope="module", params=["one machine", "each on another machine"])
def chain(request: pytest.FixtureRequest, maker: Maker) -> tuple[Parts, bool]:
    """A recommender whose nights are killed one after the other, and whether each runs on a machine of its own."""
    return maker(), request.param != "one machine"


@pytest.mark.parametrize("place", PLACES)
def test_a_night_is_killed(chain: tuple[Parts, bool], place: str) -> None:
    """It goes on from where the one before it was killed."""
    parts, elsewhere = chain
    assert parts.killed(place) == -signal.SIGKILL, parts.said()
    if elsewhere:
        parts.forget_disk()


def test_the_night_after_all_that_were_killed_ends_as_if_nothing_had_been(chain: tuple[Parts, bool], undisturbed: Parts) -> None:
    parts, _ = chain
    parts.night()
    whole(parts, undisturbed)


def test_nights_that_are_killed_after_each_write_to_the_registry(maker: Maker) -> None:
    """A second night, with a champion before it: one is killed after its first write, the next after its own first, and so on.

    Each process that moves the aliases notes first that it begins. Every second one is killed after what it writes next, or none would
    come further.
    """
    calm, parts = maker(), maker()
    for one in (calm, parts):
        one.night()
        add_a_day(one.home)
    calm.night()
    kills, places = 0, ("after write: 1", "after a step")
    while (code := parts.killed(places[kills % 2])) == -signal.SIGKILL:
        kills += 1
        assert kills < MOST_WRITES
    assert code == 0, parts.said()
    assert kills >= 6
    whole(parts, calm)
