"""The watch over nights as a command: its page, its exit code, and the webhook."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tests.flows.test_nightly import environment, home, night

__all__ = ["home"]


def monitor(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.monitor", "--config", "mine.yaml"]
    return subprocess.run(command, cwd=home, env=environment(home) | settings, capture_output=True, text=True, timeout=300, check=False)


def test_a_night_is_watched_and_a_missing_one_rings(home: Path) -> None:
    refused = monitor(home)
    assert refused.returncode == 2
    assert "Run one first" in refused.stderr

    assert night(home, "--config", "mine.yaml").returncode == 0
    quiet = monitor(home)
    assert quiet.returncode == 0, quiet.stdout + quiet.stderr
    assert "Nothing unusual" in quiet.stdout
    assert "<h1>Nothing unusual</h1>" in (home / "mlruns" / "monitor" / "mine" / "monitor.html").read_text(encoding="utf-8")

    report = next((home / "mlruns" / "nights" / "mine").glob("[0-9]*/report.json"))
    said = json.loads(report.read_text(encoding="utf-8"))
    report.write_text(json.dumps(said | {"finished": "2026-01-01T00:00:00+00:00"}), encoding="utf-8")
    heard: list[dict[str, object]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        rings = monitor(home, NIGHTLOOM_WEBHOOK=f"http://127.0.0.1:{server.server_port}/alarm")
    finally:
        server.shutdown()
    assert rings.returncode == 3, rings.stdout + rings.stderr
    assert "no night has ended for" in rings.stdout
    assert [one["name"] for one in heard] == ["mine"]
