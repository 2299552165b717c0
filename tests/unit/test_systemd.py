"""deployment/systemd: what its page says makes units that systemd takes, and they name commands that there are."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deployment" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))


def keys(unit: Path) -> dict[str, dict[str, str]]:
    """Section -> key -> value, continued lines joined; the last of several values."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment]  # keys are case-sensitive
    parser.read_string(unit.read_text(encoding="utf-8").replace("\\\n", " "))
    return {section: dict(parser[section]) for section in parser.sections()}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_each_unit_says_who_runs_what_where_and_comes_back(unit: Path) -> None:
    found = keys(unit)
    service = found["Service"]
    assert (service["User"], service["WorkingDirectory"]) == ("nightloom", "/srv/nightloom")
    assert service["ExecStart"].startswith("/srv/nightloom/.venv/bin/")
    assert service["Restart"] == "on-failure"
    assert found["Install"]["WantedBy"] == "multi-user.target"


def test_the_page_names_each_unit() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(UNITS) == 3
    assert all(unit.stem in page for unit in UNITS)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here; the units are parsed by the other tests")
def test_systemd_takes_them_after_the_page_has_put_ones_own_folder_in(tmp_path: Path) -> None:
    programs = tmp_path / "project" / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("prefect", "mlflow", "python"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/srv/nightloom", str(tmp_path / "project"))
        (tmp_path / unit.name).write_text(re.sub("(?m)^User=nightloom", "User=root", text))
    line = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    told = [said for said in done.stderr.splitlines() if "nightloom-" in said]
    assert not told, done.stderr
