"""Put pip into a virtual environment on a machine whose Python has neither pip nor ensurepip (a bare Debian or Ubuntu).

    python3 -m venv --without-pip .venv && .venv/bin/python deployment/get_pip.py

The wheel comes from the Python index, is checked against the index's SHA-256, and then installs itself.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

INDEX = "https://pypi.org/simple/pip/"
VERSION = "25.2"


def main() -> None:
    """Fetch the wheel, check it, run it."""
    with urllib.request.urlopen(INDEX, timeout=30) as answer:
        page = answer.read().decode()
    found = re.search(rf'href="([^"]*pip-{re.escape(VERSION)}-py3-none-any\.whl)#sha256=([0-9a-f]{{64}})"', page)
    if found is None:
        raise SystemExit(f"{INDEX} has no wheel of pip {VERSION}. Install Python's own: apt-get install python3-venv")
    with urllib.request.urlopen(urllib.parse.urljoin(INDEX, found[1]), timeout=60) as answer:
        wheel = answer.read()
    if hashlib.sha256(wheel).hexdigest() != found[2]:
        raise SystemExit(f"the wheel of pip {VERSION} is not what {INDEX} says it is. Try again, or apt-get install python3-venv")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"pip-{VERSION}-py3-none-any.whl"
        path.write_bytes(wheel)
        subprocess.run([sys.executable, f"{path}/pip", "install", "--quiet", "--no-index", str(path)], check=True)


if __name__ == "__main__":
    main()
