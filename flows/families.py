"""The old name of flows/baselines.py, for one version more."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    print("python -m flows.families is now python -m flows.baselines; the old name goes away with the next version.", file=sys.stderr)  # noqa: T201
    runpy.run_module("flows.baselines", run_name="__main__", alter_sys=True)
