"""A process that opens a store: `talk` answers lines, `flood` writes until it is killed, `fill` until the disk is full."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from collections import Counter
from pathlib import Path

from nightloom.serving.store import Event, Store, StoreFull
from nightloom.serving.store.writes import AddEvents


def talk(path: Path) -> None:
    """Reads ["add", id, user] and answers when it is acknowledged; ["ask", user] with how many events memory and history have."""
    store = Store.open(path)
    view, memory = store.view(), Counter[str]()
    for line in sys.stdin:
        command, *rest = json.loads(line)
        if command == "add":
            store.add_events([Event(rest[0], rest[1], "i", "click", 1)])
            answer: list[int] = []
        else:
            memory.update(change.user_id for change in view.changes() if isinstance(change, Event))
            answer = [memory[rest[0]], len(view.history(rest[0], 1000))]
        os.write(1, f"{json.dumps(answer)}\n".encode())
    store.close()


def flood(path: Path, prefix: str) -> None:
    """Eight threads write one event after the other and say each id once it is acknowledged."""
    store = Store.open(path)

    def send(thread: int) -> None:
        number = 0
        while True:
            event_id = f"{prefix}-{thread}-{number}"
            store.add_events([Event(event_id, f"u{thread}", "i", "click", number)])
            os.write(1, f"{event_id}\n".encode())
            number += 1

    for thread in range(8):
        threading.Thread(target=send, args=(thread,)).start()


def fill(path: Path, limit: str) -> None:
    """Writes until the file may not grow, then with more space again; says what was acknowledged and what was told."""
    store = Store.open(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    acknowledged, refused, said = list[str](), 0, ""
    for number in range(100_000):
        events = [Event(f"e{number}-{one}", "u", "i", "click", number, context={"pad": "x" * 400}) for one in range(20)]
        try:
            store.add_events(events)
            acknowledged += [event.event_id for event in events]
        except StoreFull as error:
            refused, said = refused + 1, str(error)
            if refused == 5:
                break
    large = [Event(f"waits-{one}", "u", "i", "click", 1, context={"pad": "x" * int(limit)}) for one in range(5)]
    futures = [store.submit(AddEvents([event])) for event in large]
    waiting = [type(future.exception(10)).__name__ for future in futures]
    read = len(store.view().history("u", 1_000_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.add_events([Event("after", "u", "i", "click", 1)])
    acknowledged.append("after")
    store.close()
    found = {"acknowledged": acknowledged, "refused": refused, "said": said, "waiting": waiting, "read": read}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    {"talk": talk, "flood": flood, "fill": fill}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])  # type: ignore[operator]
