"""Requests made of the service's own description, valid and broken ones, and all checks of schemathesis on what it answers.

    python -m benchmarks.serving_schema [--root mlruns] [--name movies-small] [--examples 200] [--seed 1]

The service runs on the champion with a store of its own, so nothing that is sent reaches the recommender. Exit code 0: no check failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.service_process import champion_of, command_line, running


def check(
    address: str, examples: int, seed: int = 1, phases: str = "examples,coverage,fuzzing,stateful"
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis with every check.

    Args:
        address: of a running service without keys.
        examples: generated requests an operation, besides those of boundaries and of the description.
        seed: of what is generated.
        phases: of schemathesis.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--checks", "all"]
    command += ["--max-examples", str(examples), "--seed", str(seed), "--phases", phases, "--no-color", "--continue-on-failure"]
    command += ["--suppress-health-check", "all", "--request-timeout", "30", "--generation-database", "none", "--warnings", "off"]
    hooks = os.environ | {"SCHEMATHESIS_HOOKS": "benchmarks.schemathesis_hooks"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=hooks)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    parser = command_line(__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="nightloom-schema-") as scratch,
        running(Path(scratch), champion_of(given.root, given.name)) as service,
    ):
        done = check(service.address, given.examples, given.seed)
    print(done.stdout)
    print(done.stderr, file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
