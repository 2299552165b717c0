"""Following a page of docs/ to the letter, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'^```(\w+)(?: title=(\S+))?(?: below="([^\n]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def copy_of_the_project(home: Path, *more: str) -> dict[str, str]:
    """Copy what a user works with, and the paths in `more`; give the environment in which its commands run."""
    for name in ("flows", "tasks", "expectations", "src", *more):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, home / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, home / name)
    programs = Path(sys.executable).parent
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{home / 'src'}{os.pathsep}{home}",
        "NIGHTLOOM_ROOT": str(home / "mlruns"),
        "HF_HUB_OFFLINE": "1",
    }


def follow(page: str, home: Path, environment: dict[str, str], until: str | None = None) -> dict[str, str]:
    """Write the files of a page, insert lines below those that the page names, and run its commands, each with its stated exit code.

    Args:
        page: name in docs/.
        home: the copy of the project.
        environment: of the commands.
        until: heading before which to stop.

    Returns:
        What each command printed.
    """
    printed: dict[str, str] = {}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for language, title, below, content in BLOCK.findall(text.partition(until)[0] if until else text):
        if below:
            before, line, after = (home / title).read_text(encoding="utf-8").partition(f"{below}\n")
            assert line, f"{title} has no line {below}"
            (home / title).write_text(before + line + content + after, encoding="utf-8")
        elif title:
            (home / title).write_text(content, encoding="utf-8")
        for command in content.splitlines() if language == "sh" else ():
            words, _, remark = command.partition("  # ")
            done = subprocess.run(words, shell=True, cwd=home, env=environment, capture_output=True, text=True, check=False)
            expected = int(remark.removeprefix("exit code ")) if remark.startswith("exit code") else 0
            assert done.returncode == expected, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            printed[command] = done.stdout + done.stderr
    return printed
