"""What has to be said before Prefect is imported."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from nightloom.quiet import silence


def before_prefect(module: str) -> None:
    """Switch telemetry off, which Prefect reads when it is imported, and set it up for a flow that is run as a command.

    Args:
        module: the flow's `__name__`. A command's console shows what stages tell; Prefect's own lines stay in its log, its database
            lies beside the runs. A flow that Prefect runs takes its settings from there.
    """
    silence()
    if module == "__main__":
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_HOME", str(Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns"), "prefect").resolve()))
        os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect makes the last folder alone
        warnings.simplefilter("ignore")
