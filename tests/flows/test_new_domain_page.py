"""docs/new-domain.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "new-domain.md"
BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_step_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    for folder in ("flows", "tasks", "expectations", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{tmp_path}",
        "NIGHTLOOM_ROOT": str(tmp_path / "mlruns"),
        "HF_HUB_OFFLINE": "1",
    }
    said: dict[str, str] = {}
    for language, title, content in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if title:
            (tmp_path / title).write_text(content, encoding="utf-8")
            continue
        assert language == "sh"
        for line in content.splitlines():
            command, _, remark = line.partition("  # ")
            done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            expected = int(remark.removeprefix("exit code ")) if remark.startswith("exit code") else 0
            assert done.returncode == expected, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            said[line] = done.stdout + done.stderr
    data, night, lists, broken = (said[line] for line in said if not re.match(r"python \w+_bakery", line))
    assert "category" in data
    assert "pieces" in broken
    assert "100" in broken
    assert "NDCG@10" in night
    assert len(re.findall(r"\bp\d+\b", lists)) >= 3
    quarantine = [*(tmp_path / "mlruns" / "nights" / "bakery").glob("*/quarantine/events.parquet")]
    assert quarantine
    assert (tmp_path / "mlruns" / "nights" / "bakery" / "latest" / "report.html").exists()
