"""No telemetry, no noise and no spinning from the libraries below: environment switches, set before they are imported."""

from __future__ import annotations

import logging
import os

SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that wait sleep: where another process wants the cores too, they would spin through its time slices and their own.
    # An epoch of the preset office, two threads on two busy cores: 3 s asleep, not done after 150 s spinning.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
}
"""Every child process inherits them."""

NOISY = ("alembic", "mlflow", "great_expectations", "matplotlib.font_manager")
"""Loggers that speak at first use: a new database's migrations, model hints, font caches."""

RAISED = "mlflow.store.db.utils"
"""Prints each error of the database with its traceback, and then raises it."""


def telemetry_off() -> None:
    """Switch telemetry off wherever the user has not said otherwise, and let noisy loggers report errors only, each once."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    for logger in NOISY:
        logging.getLogger(logger).setLevel(logging.ERROR)
    logging.getLogger(RAISED).setLevel(logging.CRITICAL)
