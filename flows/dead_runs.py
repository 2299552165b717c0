"""Flow runs of this machine whose process is gone: they hold their deployment's only place until Prefect gives it up, minutes later.

python -m flows.dead_runs      (what starts Prefect's worker runs it first)
"""

from __future__ import annotations

import os
import sys

from rich.console import Console

from flows.command import answering
from nightloom.core.errors import NightloomError
from nightloom.core.secrets import hidden, hide_in_logs
from nightloom.runs.environment import telemetry_off
from nightloom.runs.processes import alive


def cancel_dead_runs() -> list[str]:
    """Cancel the runs that say they run, or wait for an answer, by a process of this machine that is there no more; gives their names.

    Runs of other machines, and those that a process here still works on, are left alone. A run that was killed before it
    could say which process it has is left to the automation that `nightloom deploy` makes.
    """
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY
    from prefect.states import Cancelled

    from tasks.progress import PROCESS_LABEL

    going = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]))
    )
    ended = []
    secret = {"api_key": PREFECT_API_KEY.value(), "auth_string": PREFECT_API_AUTH_STRING.value()}
    with SyncPrefectClient(os.environ["PREFECT_API_URL"], **secret) as client:
        for run in client.read_flow_runs(flow_run_filter=going):
            process = run.labels.get(PROCESS_LABEL)
            if isinstance(process, str) and not alive(process):
                said = f"Its process ({process}: host, number, start) is gone."
                client.set_flow_run_state(run.id, Cancelled(message=said), force=True)
                ended.append(run.name)
    return ended


def main() -> int:
    """Cancel them from the command line; gives the exit code: 0 done, 1 Prefect's server does not answer."""
    telemetry_off()
    hide_in_logs()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        answering(os.environ.get("PREFECT_API_URL", ""))
        for name in cancel_dead_runs():
            print(f"cancelled {name}: its process is gone")  # noqa: T201
    except NightloomError as error:
        errors.print(hidden(str(error)), markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
