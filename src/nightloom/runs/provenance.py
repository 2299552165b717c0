"""What a run was made from: the hashes of data, config and code, and the commit of the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

from nightloom.runs.code import code_version
from nightloom.runs.stages import Night


def git_state(folder: Path) -> str:
    """Commit of a checkout, with "+dirty" when its code is another; "unknown" outside git.

    Another are tracked files that were changed, and Python files that git does not know. Tables and configs that lie there are no code.
    """
    try:
        sha = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        unknown = _git(folder, "ls-files", "--others", "--exclude-standard", "--", ":/*.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return sha + ("+dirty" if changed or unknown else "")


def run_tags(night: Night, data_hash: str) -> dict[str, str]:
    """The hashes that every run of a night carries."""
    return {
        "nightloom.data_hash": data_hash,
        "nightloom.config_hash": night.config.digest(),
        "nightloom.git": git_state(Path(__file__).parent),
        "nightloom.code": code_version(),
    }


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout.strip()
