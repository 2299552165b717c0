"""The deployment: Prefect starts the nightly flow of a config on time, by a form or by hand. Updates one of the same name.

python -m flows.deploy (--preset NAME | --config FILE.yaml) [--set key=value ...] [--cron "0 2 * * *"]
                       [--timezone Europe/Berlin] [--name NAME] [--pool POOL]
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from rich.console import Console

from flows.command import before_prefect, parser, refused
from nightloom.core.errors import InputError
from nightloom.core.shell import typed

POOL = "local"
IMAGE_HOME = "{{ $NIGHTLOOM_HOME }}"
"""Of the project in an image, as Prefect reads it there."""
HEARTBEAT, SILENT_MINUTES = "prefect.flow-run.heartbeat", 10
"""The event by which a run shows that it lives, and how long it may be missing: three of them, and a little."""
SERVER = "http://127.0.0.1:4200/api"
"""Where `make ui` starts Prefect's server."""


def check(given: Namespace) -> None:
    """Refuse a time zone or schedule that there is not; without an address the server is that of `make ui`."""
    try:
        zone = ZoneInfo(given.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(f"--timezone: there is no time zone '{given.timezone}'. Write it as Europe/Berlin, or UTC.") from error
    try:
        given.next = next(CronSim(given.cron, datetime.now(UTC).astimezone(zone)))
    except (CronSimError, StopIteration) as error:
        raise InputError(f"--cron '{given.cron}': {error}. Write minute, hour, day, month, weekday: \"0 2 * * *\" is 02:00.") from error
    os.environ.setdefault("PREFECT_API_URL", SERVER)


command = parser("deploy", "Have Prefect start a night on time.")
command.add_argument("--cron", default="0 2 * * *", help='when a night starts, as in crontab (default "0 2 * * *")')
command.add_argument("--timezone", default="UTC", help="of --cron, for example Europe/Berlin (default UTC)")
command.add_argument("--name", help="name of the deployment; by default the config's")
command.add_argument(
    "--pool", default=POOL, help=f"Prefect's work pool; {POOL}, made where there is none, runs nights on the worker's machine"
)
given = before_prefect(__name__, command, check)  # a typo is refused before the imports below, which take seconds

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.callables import parameter_schema

from flows.dead_runs import cancel_dead_runs
from flows.nightly import nightly
from nightloom.config import RunConfig


def home_in(client: SyncPrefectClient, pool: str) -> str:
    """Where the project's folder is for the nights of a work pool: here, or in their image.

    Raises:
        InputError: there is no such pool.
    """
    if pool == POOL:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    try:
        kind = client.read_work_pool(pool).type
    except ObjectNotFound as error:
        how = '"Nights in containers of their own" in docs/deployment.md'
        raise InputError(f"--pool {pool}: Prefect's server has no such work pool. Make it as under {how}.") from error
    return str(Path(__file__).parents[1]) if kind == "process" else IMAGE_HOME


def deploy(client: SyncPrefectClient, config: RunConfig, name: str, cron: str, timezone: str, pool: str = POOL) -> str:
    """Make or update a deployment of the nightly flow: one night at a time, a late one is cancelled. Gives its full name."""
    home = home_in(client, pool)
    made = client.create_deployment(
        client.create_flow(nightly),
        name,
        entrypoint="flows.nightly.nightly",
        description=f"Retrains {config.name} at {cron} ({timezone}).",
        parameters={"config": config.model_dump(mode="json", exclude_unset=True)},
        parameter_openapi_schema=parameter_schema(nightly).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        work_pool_name=pool,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": home}}],
        schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone=timezone))],
        concurrency_limit=1,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )
    watch(client, made, f"{nightly.name}/{name}", config.name)
    return f"{nightly.name}/{name}"


def watch(client: SyncPrefectClient, deployment: UUID, name: str, model: str) -> None:
    """Have Prefect's server mark runs of a deployment, and others of its model, as crashed that do not show a sign of life any more.

    A run that was killed with its worker says itself that it runs, and holds the deployment's place. Runs send a heartbeat every
    three minutes. One that stops is not enough: known false alarms come from one that is late, or sent as the run ends. The change is
    not forced, so a run that has ended stays as it ended. The run in which a night asks has no deployment, but the model's tag: an answer
    to a night that was killed would be taken, and nobody would hear it.
    """
    ended = {f"prefect.flow-run.{state}" for state in ("Completed", "Unchanged", "Failed", "Cancelled", "Crashed")}
    rule = AutomationCore(
        name=f"{name}: runs without a sign of life",
        description="Made by `nightloom deploy`. A run that was killed with its worker would hold the deployment's only place.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *ended},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {
                    "prefect.resource.id": [f"prefect.deployment.{deployment}", f"prefect.tag.name:{model}"],
                    "prefect.resource.role": ["deployment", "tag"],
                }
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(minutes=SILENT_MINUTES),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"No sign of life for {SILENT_MINUTES} minutes.")],
    )
    there = client.read_automations_by_name(rule.name)
    if there:
        client.update_automation(there[0].id, rule)
    else:
        client.create_automation(rule)


def main(given: Namespace) -> int:
    """Deploy from the command line; gives the exit code: 0 it is deployed, 1 a fault, 2 refused input."""
    console = Console(highlight=False, soft_wrap=True)
    for name in cancel_dead_runs():
        console.print(f"Cancelled {name}: its process is gone.", markup=False)
    with get_client(sync_client=True) as client:
        try:
            made = deploy(client, given.config, given.name or given.config.name, given.cron, given.timezone, given.pool)
        except InputError as error:
            return refused(error, Console(stderr=True, highlight=False))
    console.print(f"{made}: next night {given.next:%Y-%m-%d %H:%M} ({given.timezone}).")
    worker = typed("prefect", "worker", "start", "--pool", given.pool)
    there = " (`make ui` and the units in deployment/systemd/ start one)" if given.pool == POOL else ""
    console.print(f"A worker runs it: {worker}{there}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(given))
