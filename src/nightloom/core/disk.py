"""A full disk and a read-only folder, said plainly: what is wrong with which place, and what to do.

Libraries that write in C++ or Rust, databases and other processes say it in words alone. So errors are known by number or words.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nightloom.core.errors import InputError
from nightloom.core.shell import typed

FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY_DISK = "read-only file system"
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
WORDS = {
    "no space left on": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "not enough free space to write": errno.ENOSPC,
    r"\d requested and \d+ written": errno.ENOSPC,
    "disk quota exceeded": errno.EDQUOT,
    r"errno 27\] file too large": errno.EFBIG,
    "os error 27": errno.EFBIG,
    "no usable temporary directory": errno.EROFS,
    READ_ONLY_DISK: errno.EROFS,
    "attempt to write a readonly database": errno.EROFS,
}
"""Patterns of what numpy, safetensors, SQLite and the logs of workers say, in small letters -> the error number."""
LITTLE = 16 * 2**20
"""A disk with less free space than this, in bytes, is full: Prefect's and MLflow's databases alone take more than half of it."""
TRIED = 64 * 1024
"""Bytes that are written to try a folder: quotas and limits of files show only so."""
UNPRINTED = "standard output can not be written: what was printed is cut short. Free some space on its disk, or print elsewhere."


@contextmanager
def disk_of(folder: Path) -> Iterator[None]:
    """Turn what a full disk or a read-only folder does to the block into a message that says which and what to do.

    Args:
        folder: where the block writes; named where the error names no file.

    Raises:
        InputError: in place of such an error; all others are raised as they are.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = trouble(error, folder)
        if said is None:
            raise
        raise InputError(said) from error


def trouble(error: BaseException, folder: Path, places: Sequence[Path] = ()) -> str | None:
    """What a full disk or a read-only folder has to do with an error, and what to do; None where it has nothing to do with it.

    Args:
        error: any error, with those that caused it.
        folder: where was written, in case the error does not say.
        places: folders that are looked at, too: servers and workers say only that something failed.
    """
    for one in _chain(error):
        number = _number(one, own=one is error)
        if number is None:
            continue
        named = getattr(one, "filename2", None) or getattr(one, "filename", None)
        named = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else None
        if number in FULL:
            return full(named if named and named.is_dir() else named.parent if named else _fullest([folder, *places]))
        if number == errno.EFBIG:
            return (
                f"a file under {named or folder} must not grow any more (file too large). Raise the limit (`ulimit -f`), then start again."
            )
        return read_only(named or folder, str(getattr(one, "strerror", None) or one))
    for place in places:
        if why := no_writing(place):
            return read_only(place, why)
        if said := _little(place):
            return f"{said} ({type(error).__name__}: {next(iter(str(error).splitlines()), '')})"
    return None


def command_trouble(error: BaseException, root: Path, places: Sequence[Path] = ()) -> str | None:
    """The same for an error that ends a command, which may have failed at printing.

    Args:
        error: any error.
        root: the mlruns folder.
        places: other folders that its servers write to.
    """
    if isinstance(error, OSError) and error.errno in FULL and error.filename is None and not _prints():
        return UNPRINTED
    return trouble(error, root, [root, *places])


def full(folder: Path) -> str:
    """The message of a full disk."""
    return f"no space left on the disk of {folder}. {_remedy()}"


def _remedy() -> str:
    trim = typed("nightloom", "trim", "--keep", 3)
    return f"Free some (`{trim}` deletes what old nights left) and start again: finished stages are kept."


def read_only(place: Path, why: str) -> str:
    """The message of a place that this user, or nobody, can read or write."""
    if READ_ONLY_DISK in why.lower():
        return (
            f"{place} can not be used ({why}). Mount its disk for writing again (`dmesg` may say why it is not), or name another (--root "
            "or NIGHTLOOM_ROOT), then start again: finished stages are kept."
        )
    return f"{place} can not be used ({why}). Give this user the right to read and write it, or name another (--root or NIGHTLOOM_ROOT)."


def writable(folder: Path) -> None:
    """Make a folder and try it with a small file, before anything is begun that takes long to fail there.

    Raises:
        InputError: the folder can not be made or written, or its disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            left = TRIED
            while left:
                left -= file.write(bytes(left)) or 0
    except OSError as error:
        error.filename = str(folder)
        raise InputError(trouble(error, folder) or read_only(folder, str(error.strerror or error))) from error
    if said := _little(folder):
        raise InputError(said)


def flush() -> None:
    """Write out what was printed. Who has closed the other end of a pipe has read enough.

    Raises:
        InputError: it can not be written, for example on a full disk.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries once more when it ends
        if not isinstance(error, BrokenPipeError):
            raise InputError(UNPRINTED) from error


def _prints() -> bool:
    """Whether standard output takes one more line; a full disk behind a redirection does not."""
    try:
        os.write(sys.__stdout__.fileno(), b"\n")  # type: ignore[union-attr]  # without one there is an error, too
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _number(error: BaseException, *, own: bool) -> int | None:
    """The error number that makes an error one of these.

    A missing right counts only where it is the error itself: code that looks at files meets it on its way, too.
    """
    number, named = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    if number in (*FULL, errno.EFBIG, errno.EROFS) or (own and named and number in READ_ONLY):
        return number
    if own and number == errno.EEXIST and named and Path(os.fsdecode(named)).is_file():  # where a folder should be
        return number
    said = str(error).lower()
    return next((known for words, known in WORDS.items() if re.search(words, said)), None)


def _chain(error: BaseException) -> list[BaseException]:
    """An error, and those that it was raised from or while handling."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return found


def _existing(place: Path) -> Path:
    return next((one for one in (place, *place.absolute().parents) if one.exists()), Path("/"))


def _fullest(places: Sequence[Path]) -> Path:
    with suppress(OSError):  # there may be no temporary folder that can be written
        places = [*places, Path(tempfile.gettempdir())]
    return min(places, key=lambda place: shutil.disk_usage(_existing(place)).free)


def no_writing(place: Path) -> str | None:
    """Why nothing at all can be written to the disk of a folder right now; None where it can be.

    It is tried: a disk that Linux made read-only after an error still says of itself that it can be written.
    """
    at = _existing(place)
    try:
        tempfile.TemporaryFile(dir=at if at.is_dir() else at.parent, buffering=0).close()
    except OSError as error:
        return os.strerror(errno.EROFS) if error.errno == errno.EROFS else None
    return None


def _little(place: Path) -> str | None:
    """The message of a disk that is almost full."""
    at = os.statvfs(_existing(place))
    free = at.f_bavail * at.f_frsize
    return f"only {free / 2**20:.1f} MiB are free on the disk of {place}. {_remedy()}" if free < LITTLE else None
