"""`python -m nightloom.training --config run.json [--workers N]`: train from a prepared folder.

Under torch.distributed.run (RANK is set) this is one worker of several.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nightloom.core.disk import trouble
from nightloom.core.errors import InputError, NightloomError


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the process's exit code: 0, 2 for refused input, 1 for a fault of the environment."""
    parser = argparse.ArgumentParser(prog="python -m nightloom.training", description="Train Nightloom from a prepared folder.")
    parser.add_argument("--config", type=Path, required=True, help="run.json: config, protocol, prepared, pretrained, out")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--parent", type=int, default=0, help="end when the process of this id does")
    parser.add_argument(
        "--launcher", choices=["torchrun", "ray"], default="torchrun", help="ray: on the nodes of the cluster that this is a job of"
    )
    parser.add_argument("--beat", type=Path, help="with ray: end when this file has not been rewritten for five minutes")
    parser.add_argument("--nodes", type=int, default=1, help="machines; this command runs on each, with --workers processes (default 1)")
    parser.add_argument("--node-rank", type=int, default=0, help="which of them this is; node 0 keeps the store")
    parser.add_argument("--store", help="HOST:PORT of node 0 where the machines meet")
    given = parser.parse_args(arguments)
    from nightloom.runs.processes import tie_to_parent
    from nightloom.training.launch import run_workers

    tie_to_parent(given.parent)
    from nightloom.training.distributed import World, world
    from nightloom.training.run import Training
    from nightloom.training.run_json import Run

    try:
        run = Run.load(given.config)
        run.out.mkdir(parents=True, exist_ok=True)
        if given.launcher == "ray":
            from nightloom.training.ray_workers import refusals, run_on_ray

            with refusals(run.out):
                Training(run, World())  # refuses what does not fit before any worker starts
                run_on_ray(run, given.config, given.workers, given.beat)
            return 0
        if given.nodes > 1 and "RANK" not in os.environ:
            from nightloom.training.nodes import Nodes, run_nodes

            nodes = Nodes.of(given.nodes, given.node_rank, given.store)
            Training(run, World())
            return run_nodes(given.config, given.workers, nodes)
        if given.workers > 1 and "RANK" not in os.environ:
            Training(run, World())  # refuses what does not fit before any worker starts
            return run_workers(given.config, given.workers)
        with world() as here:
            Training(run, here)()
            here.wait()  # a worker that leaves while rank 0 still writes could only be taken for a failed one
    except NightloomError as error:
        return _refused(error)
    except Exception as error:  # safetensors and torch have errors of their own for a full disk
        if said := trouble(error, given.config.parent):
            return _refused(InputError(said))
        raise
    if "RANK" in os.environ:
        # All is written. Workers were seen to abort in C++ ("terminate called without an active exception") while the
        # interpreter shut down. For torchrun that is a failed training, so the interpreter does not shut down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _refused(error: NightloomError) -> int:
    sys.stderr.write(f"{error}\n")
    return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
