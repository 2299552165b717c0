"""One text encoder for all workers of a machine: a process of its own, which the first that needs it starts, and which ends after the last.

OpenVINO and its tokenizer take some 100 MB. A worker that asks holds a connection instead.

    python -m nightloom.encoders.shared FOLDER SOCKET
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import lru_cache
from hashlib import sha256
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightloom import __version__
from nightloom.core.errors import InputError, NightloomError

if TYPE_CHECKING:
    from nightloom.encoders.exported import ExportedEncoder

IDLE_SECONDS = 5.0
"""How long the process stays when nobody holds a connection."""
LONGEST_SECONDS = 30.0
"""How long it may take to open the encoder, or to read a text."""
REMEMBERED = 4096
"""Latest texts whose vectors a worker keeps: an item that was checked is put next, and people ask the same words."""
GOOD, BAD = b"+", b"-"
"""First byte of an answer: a vector follows, or what went wrong."""
FloatArray = NDArray[np.float32]


class SharedEncoder:
    """Texts in, vectors out, from the machine's encoder. Threads may share it.

    Args:
        folder: what `nightloom.encoders.export.export` wrote.

    Attributes:
        dim: width of a vector.

    Raises:
        InputError: the encoder can not be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._lock, self._known = threading.Lock(), dict[str, FloatArray]()
        self._connection: Connection | None = None
        self.dim = len(self.vector(""))

    def vector(self, text: str) -> FloatArray:
        """The vector of a text, float32 [dim], kept for the next time.

        Raises:
            InputError: the encoder can not be opened.
            NightloomError: it does not answer.
        """
        known = self._known.get(text)
        if known is None:
            known = self._asked(text)
            known.setflags(write=False)
            while len(self._known) >= REMEMBERED:
                self._known.pop(next(iter(self._known)), None)
            self._known[text] = known
        return known

    def close(self) -> None:
        """Let the connection go; the next text opens another one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _asked(self, text: str) -> FloatArray:
        with self._lock:
            for last in (False, True):
                try:
                    if self._connection is None:
                        self._connection = connected(self.folder)
                    self._connection.send_bytes(text.encode("utf-8", "surrogatepass"))
                    if not self._connection.poll(LONGEST_SECONDS):
                        raise TimeoutError("no answer")
                    said = self._connection.recv_bytes()
                    break
                except (OSError, EOFError) as error:  # it was ended, and is started anew, once
                    if self._connection is not None:
                        self._connection.close()
                    self._connection = None
                    if last:
                        raise NightloomError(f"{self.folder}: the text encoder's process does not answer ({error!r}).") from error
        if said[:1] == BAD:
            raise InputError(said[1:].decode())
        return np.frombuffer(said[1:], dtype=np.float32).copy()


@lru_cache(maxsize=2)
def shared(folder: Path) -> SharedEncoder:
    """The encoder of a folder, asked over one connection: versions that share one share it.

    Raises:
        InputError: as `SharedEncoder`.
    """
    return SharedEncoder(folder)


def connected(folder: Path) -> Connection:
    """A connection to the process that reads texts by an encoder; it is started where it is not there.

    Raises:
        OSError: it does not come up.
    """
    place = socket_of(folder)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one starts it, the others wait
        try:
            return Client(str(place), "AF_UNIX")
        except OSError:
            place.unlink(missing_ok=True)
        command = [sys.executable, "-m", "nightloom.encoders.shared", str(folder), str(place)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        ends = time.monotonic() + LONGEST_SECONDS
        while process.poll() is None and time.monotonic() < ends:
            try:
                return Client(str(place), "AF_UNIX")
            except OSError:
                time.sleep(0.01)
        raise OSError(f"the process ended with {process.poll()}")


def socket_of(folder: Path) -> Path:
    """Where the process of an encoder listens: in a folder of this user alone, since paths of sockets are short.

    Raises:
        OSError: the folder belongs to somebody else.
    """
    home = Path(tempfile.gettempdir()) / f"nightloom-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    seen = home.lstat()
    if seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise PermissionError(f"{home} can be read by others, or is another user's: remove it")
    return home / f"{sha256(f'{folder} {__version__} {sys.executable}'.encode()).hexdigest()[:16]}.sock"


class Server:
    """Reads texts for whoever connects, each in a thread.

    Args:
        folder: the encoder.
        place: of the socket.
    """

    def __init__(self, folder: Path, place: Path) -> None:
        self._listener = Listener(str(place), "AF_UNIX", backlog=64)
        self._lock, self._held, self._left = threading.Lock(), 0, time.monotonic()
        self._folder = folder

    def run(self) -> None:
        """Until nobody has held a connection for a while; where the encoder can not be opened, until the first one was told so."""
        from nightloom.encoders.exported import ExportedEncoder  # here, since the workers that start this process need it not

        try:
            encoder = ExportedEncoder(self._folder)
        except InputError as error:
            with self._listener.accept() as connection, contextlib.suppress(EOFError, OSError):
                connection.recv_bytes()
                connection.send_bytes(BAD + str(error).encode())
        else:
            threading.Thread(target=self._accept, args=(encoder,), daemon=True).start()
            while self._held or time.monotonic() - self._left < IDLE_SECONDS:
                time.sleep(IDLE_SECONDS / 5)
        self._listener.close()

    def _accept(self, encoder: ExportedEncoder) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection = self._listener.accept()
                with self._lock:
                    self._held += 1
                threading.Thread(target=self._serve, args=(connection, encoder), daemon=True).start()

    def _serve(self, connection: Connection, encoder: ExportedEncoder) -> None:
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                text = connection.recv_bytes().decode("utf-8", "surrogatepass")
                try:
                    answer = GOOD + encoder.vector(text).tobytes()
                except Exception as error:  # both libraries raise bare exceptions
                    answer = BAD + f"a text can not be read: {error!r}".encode()
                connection.send_bytes(answer)
        with self._lock:
            self._held -= 1
            self._left = time.monotonic()


def main() -> None:
    """Run the process."""
    Server(Path(sys.argv[1]), Path(sys.argv[2])).run()


if __name__ == "__main__":
    main()
