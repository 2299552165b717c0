"""Commands as a person can type them: printed hints work when they are copied."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def typed(program: str, *arguments: object) -> str:
    """A command line that runs a program of this environment from the working directory.

    Args:
        program: its name beside the interpreter, such as `nightloom` or `python`.
        arguments: its arguments; each is quoted where a shell would otherwise read it differently.

    Returns:
        `nightloom ...` where the shell finds this environment's program by that name, else with its path: relative to the working
        directory where it lies below it (`.venv/bin/nightloom ...`).
    """
    beside = Path(sys.executable).parent / program
    on_path = shutil.which(program)
    if on_path is not None and Path(on_path) == beside:
        name = program
    else:
        relative = os.path.relpath(beside)
        name = str(beside) if relative.startswith(os.pardir) else relative
    return shlex.join([name, *map(str, arguments)])
