"""A process that does not end when it is told to."""

from __future__ import annotations

import signal
import time
from multiprocessing.synchronize import Event


def stubborn(ready: Event) -> None:
    """Stay for half a minute."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.set()
    time.sleep(30)
