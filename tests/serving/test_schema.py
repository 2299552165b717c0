"""The service keeps to its own description, whatever is sent: schemathesis with all checks, on a real process.

Boundaries of every field (`coverage`) take minutes: `python -m benchmarks.serving_schema` has them, and 200 examples an operation.
"""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

from benchmarks.service_process import running
from benchmarks.serving_schema import check
from tests.service_app import make_served, name_champion

EXAMPLES = 10


def test_no_check_fails(tmp_path: Path) -> None:
    name_champion(tmp_path, make_served(tmp_path / "made", reranker=True, labels=True))
    with running(tmp_path) as service:
        done = check(service.address, EXAMPLES, phases="examples,fuzzing,stateful")
        with urllib.request.urlopen(f"{service.address}/openapi.json", timeout=30) as found:
            operations = sum(len(one) for one in json.load(found)["paths"].values())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    tested = re.search(rf"Selected: {operations}/{operations}", done.stdout)
    assert tested, done.stdout[-2000:]
    assert "Traceback" not in service.log.read_text()
